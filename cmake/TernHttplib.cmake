# cpp-httplib (Debian: libcpp-httplib-dev, 0.11 to 0.14) as the target tern::httplib. The packages compile it into a library
# with TLS and compression; its header must be read with the same switches, since classes have members by them.
find_path(HTTPLIB_INCLUDE httplib.h REQUIRED)
find_library(HTTPLIB_LIB cpp-httplib REQUIRED)
add_library(tern_httplib INTERFACE)
target_include_directories(tern_httplib SYSTEM INTERFACE ${HTTPLIB_INCLUDE})
target_compile_definitions(tern_httplib INTERFACE
  CPPHTTPLIB_OPENSSL_SUPPORT CPPHTTPLIB_ZLIB_SUPPORT CPPHTTPLIB_BROTLI_SUPPORT)
target_link_libraries(tern_httplib INTERFACE ${HTTPLIB_LIB} OpenSSL::Crypto Threads::Threads)
add_library(tern::httplib ALIAS tern_httplib)
