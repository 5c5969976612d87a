# The zstd library (Debian: libzstd-dev) as the target tern_zstd.
find_path(ZSTD_INCLUDE zstd.h REQUIRED)
find_library(ZSTD_LIB zstd REQUIRED)
add_library(tern_zstd INTERFACE)
target_include_directories(tern_zstd SYSTEM INTERFACE ${ZSTD_INCLUDE})
target_link_libraries(tern_zstd INTERFACE ${ZSTD_LIB})
