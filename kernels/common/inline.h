// For the helpers of vector kernels, which only make sense inside their caller.
#pragma once

#define TERN_INLINE inline __attribute__((always_inline))
