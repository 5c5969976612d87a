// The engine as a library: continues a prompt and streams the text.
//   build/cpu/bin/example_generate MODEL.gguf "To be, or not"
#include <exception>
#include <iostream>

#include "engine/tern_engine.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: example_generate MODEL PROMPT\n";
    return 2;
  }
  try {
    const tern::engine::LanguageModel model(argv[1]);
    tern::engine::GenerateOptions options;
    options.max_tokens = 64;
    options.sampling.temperature = 0.8;
    options.sampling.top_p = 0.95;
    options.stop = {"\n\n"};
    std::cout << argv[2];
    const auto result = model.Generate(
        argv[2], options, [](std::string_view piece) { std::cout << piece << std::flush; });
    std::cout << "\n";
    std::cerr << result.new_tokens << " tokens, " << result.DecodeRate() << " a second; ended by "
              << ToString(result.end) << "\n";
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
