// The deploy half's part of `doctor`, which the full program extends.
#pragma once

namespace tern::engine_cli {

// Versions, instruction sets and the CUDA plug-in, on stdout.
void PrintDeployDoctor();

}  // namespace tern::engine_cli
