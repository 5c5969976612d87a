# The CUDA part of libtorch for the plug-in libtern_torch_cuda.so. TERN_HAVE_TORCH_CUDA says whether it is built: the folder
# of libtorch must be that of a whole CUDA wheel (scripts/setup --cuda) with the NVIDIA wheels beside it, whose NCCL and cuDNN
# it wants: a system's are other versions. No nvcc is needed, and no GPU to build.
set(TERN_HAVE_TORCH_CUDA OFF)
if(NOT TERN_TORCH_CUDA STREQUAL "OFF")
  get_filename_component(TERN_NVIDIA_DIR ${TERN_TORCH_DIR}/../nvidia ABSOLUTE)
  file(GLOB TERN_NVIDIA_INCLUDES ${TERN_NVIDIA_DIR}/*/include)
  file(GLOB TERN_NVIDIA_LIBS ${TERN_NVIDIA_DIR}/*/lib)
  find_path(TERN_NCCL_INCLUDE nccl.h PATHS ${TERN_NVIDIA_INCLUDES} NO_DEFAULT_PATH)
  find_path(TERN_CUDART_INCLUDE cuda_runtime_api.h PATHS ${TERN_NVIDIA_INCLUDES} NO_DEFAULT_PATH)
  if(EXISTS ${TERN_TORCH_DIR}/lib/libtorch_cuda.so AND TERN_NCCL_INCLUDE AND TERN_CUDART_INCLUDE)
    set(TERN_HAVE_TORCH_CUDA ON)
  elseif(TERN_TORCH_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TERN_TORCH_CUDA=ON, but ${TERN_TORCH_DIR} is no CUDA build of libtorch with its NVIDIA wheels (want "
                        "lib/libtorch_cuda.so, and nccl.h and cuda_runtime_api.h in ${TERN_NVIDIA_DIR}/*/include). Run "
                        "scripts/setup --cuda, or give your own with -DTERN_TORCH_DIR=...")
  else()
    message(STATUS "no CUDA build of libtorch in ${TERN_TORCH_DIR}: this build trains on CPUs (scripts/setup --cuda fetches one)")
  endif()
endif()

function(tern_use_torch_cuda target)
  target_link_libraries(${target} PRIVATE tern_options tern_torch)
  target_include_directories(${target} SYSTEM PRIVATE ${TERN_NVIDIA_INCLUDES})
  target_compile_definitions(${target} PRIVATE USE_C10D_NCCL)
  target_link_libraries(${target} PRIVATE
    -Wl,--no-as-needed ${TERN_TORCH_DIR}/lib/libtorch_cuda.so ${TERN_TORCH_DIR}/lib/libc10_cuda.so)
  foreach(folder ${TERN_NVIDIA_LIBS})
    target_link_options(${target} PRIVATE -Wl,-rpath-link,${folder} -Wl,-rpath,${folder})
  endforeach()
endfunction()
