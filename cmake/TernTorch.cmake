# libtorch's CPU part as the target tern::torch. find_package(Torch) is not used: it probes for GPUs for over a minute
# and takes over the CUDA architecture list. The definitions are those that the wheel's own targets carry.
if(NOT TERN_TORCH_DIR)
  set(folder libtorch-2.15.0)
  if(TERN_TORCH_CUDA STREQUAL "ON")
    set(folder libtorch-2.15.0-cuda)
  endif()
  if(DEFINED ENV{TERN_CACHE})
    set(TERN_TORCH_DIR $ENV{TERN_CACHE}/${folder}/torch)
  else()
    set(TERN_TORCH_DIR $ENV{HOME}/.cache/tern/${folder}/torch)
  endif()
endif()
if(NOT EXISTS ${TERN_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "no libtorch in ${TERN_TORCH_DIR} (want lib/libtorch_cpu.so). Run scripts/setup, or give your own "
                      "with -DTERN_TORCH_DIR=..., or build the deploy half alone with -DTERN_TORCH=OFF.")
endif()

add_library(tern_torch INTERFACE)
target_include_directories(tern_torch SYSTEM INTERFACE
  ${TERN_TORCH_DIR}/include ${TERN_TORCH_DIR}/include/torch/csrc/api/include)
target_compile_definitions(tern_torch INTERFACE
  _GLIBCXX_USE_CXX11_ABI=1 USE_C10D_GLOO USE_DISTRIBUTED)
# at::parallel_for is a template that is serial in a file compiled without OpenMP. The runtime must be libtorch's own, or the
# process would have two pools of threads.
file(GLOB TERN_TORCH_GOMP ${TERN_TORCH_DIR}/lib/libgomp*.so*)
if(NOT TERN_TORCH_GOMP)
  set(TERN_TORCH_GOMP -fopenmp)  # A libtorch that uses the system's
endif()
target_compile_options(tern_torch INTERFACE -fopenmp)
target_link_libraries(tern_torch INTERFACE
  ${TERN_TORCH_DIR}/lib/libtorch_cpu.so ${TERN_TORCH_DIR}/lib/libc10.so ${TERN_TORCH_GOMP})
target_link_options(tern_torch INTERFACE
  -Wl,-rpath,${TERN_TORCH_DIR}/lib -Wl,-rpath-link,${TERN_TORCH_DIR}/lib
  # libtorch_cpu names the CUDA runtime even for CPU use; its own RPATH finds it at run time, not at link time.
  -Wl,--allow-shlib-undefined)
add_library(tern::torch ALIAS tern_torch)

# One precompiled header for the whole training half: a file with the wide ATen header costs 15 s without it. Tests are compiled
# at -O1 (TernModule.cmake) and need one of their own: GCC refuses a header of another level.
add_library(tern_torch_pch STATIC ${CMAKE_SOURCE_DIR}/cmake/torch_pch.cc)
add_library(tern_torch_test_pch STATIC EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/cmake/torch_pch.cc)
target_compile_options(tern_torch_test_pch PRIVATE ${TERN_TEST_OPTIONS})
foreach(pch tern_torch_pch tern_torch_test_pch)
  target_link_libraries(${pch} PUBLIC tern_options tern_torch)
  target_precompile_headers(${pch} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/torch_pch.h)
endforeach()

# libtorch has Gloo's symbols, not its headers (Debian: libgloo-dev): src/parallel needs them for c10d's CPU back end.
find_path(TERN_GLOO_INCLUDE gloo/context.h REQUIRED)

# tern_use_torch(TARGET PCH): PCH is tern_torch_pch, of tests tern_torch_test_pch.
function(tern_use_torch target pch)
  target_link_libraries(${target} PUBLIC tern_torch)
  target_precompile_headers(${target} REUSE_FROM ${pch})
endfunction()
