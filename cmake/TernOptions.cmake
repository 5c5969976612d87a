# Compiler settings shared by every target: C++20, our warnings are errors, no contraction into FMA (the numbers of
# BitLinear are defined without it), ccache when present.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
# -fPIC everywhere, executables too: with CMake's own switch those get -fPIE, which the precompiled header refuses.
add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-fPIC>)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set(CMAKE_BUILD_RPATH "$ORIGIN/../lib")  # Where the programs look for plug-ins
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
# With sanitizers the optimizer takes five times as long: only what computes gets it (TERN_HOT).
set(TERN_HOT)
set(TERN_ISA_OPTIONS -O3)  # Of files for one instruction set
set(TERN_TEST_OPTIONS -O1)  # What computes is in the libraries: -O2 of tests costs a third more time and gains nothing.
if(TERN_SANITIZE)
  set(TERN_TEST_OPTIONS)
  set(CMAKE_CXX_FLAGS_RELEASE "-O0 -DNDEBUG")
  set(TERN_HOT -O1)
  if(TERN_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND TERN_HOT --param=asan-instrumentation-with-call-threshold=7000)  # GCC's default; see below
  endif()
  # Intrinsics dereference pointers by the thousand: a check of each for null and alignment takes most of the compiler's time.
  # ASan sees a null pointer as well, and the reference versions keep both checks. Overflows, shifts, bounds stay checked.
  set(TERN_ISA_OPTIONS ${TERN_HOT} -fno-sanitize=null,alignment)
endif()

find_program(TERN_CCACHE ccache)
if(TERN_CCACHE)
  # Precompiled headers need time macros and defines to be ignored: ccache manual, "Precompiled headers".
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${TERN_CCACHE})
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)
endif()

add_library(tern_options INTERFACE)
target_compile_options(tern_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wno-psabi -ffp-contract=off -fno-math-errno>)
target_compile_definitions(tern_options INTERFACE TERN_VERSION="${PROJECT_VERSION}")
target_include_directories(tern_options INTERFACE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
if(TERN_SANITIZE)
  add_compile_options(-fsanitize=${TERN_SANITIZE} -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${TERN_SANITIZE})
  if(TERN_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Checks of memory accesses as calls, not inline: the same checks in half the time to compile.
    add_compile_options(--param=asan-instrumentation-with-call-threshold=0)
    # What computes keeps them inline up to GCC's usual limit: the kernels' tests would take several times as long.
  endif()
endif()
