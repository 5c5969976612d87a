# CUDA is optional: TERN_HAVE_CUDA says whether the .cu files are built. Without nvcc everything else builds and is
# tested (the kernels' sources run in the emulator), and this says that the plug-in was skipped.
set(TERN_HAVE_CUDA OFF)
if(NOT TERN_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(CMAKE_CUDA_ARCHITECTURES ${TERN_CUDA_ARCHITECTURES})
    enable_language(CUDA)
    # As a flag: CMake 3.25 (Debian 12) does not know that nvcc has C++20.
    string(APPEND CMAKE_CUDA_FLAGS " -std=c++20")
    set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
    set(TERN_HAVE_CUDA ON)
  elseif(TERN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TERN_CUDA=ON, but no nvcc was found. Install the CUDA Toolkit (see README.md) or use the cpu preset.")
  else()
    message(STATUS "no nvcc: the CUDA plug-ins are skipped (README.md says how to get it)")
  endif()
endif()
