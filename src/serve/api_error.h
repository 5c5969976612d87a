// An error that a client of the HTTP interface sees: a status and the members of OpenAI's error
// object. Thrown by whatever reads or runs a request, turned into a response in one place
// (service.h).
#pragma once

#include <stdexcept>
#include <string>

namespace tern::serve {

struct ApiError : std::runtime_error {
  ApiError(int http_status, const std::string& message, std::string error_param = "",
           std::string error_code = "", int retry_after_seconds = 0)
      : std::runtime_error(message),
        status(http_status),
        param(std::move(error_param)),
        code(std::move(error_code)),
        retry_after(retry_after_seconds) {}

  int status;
  std::string param;  // The member of the request that is wrong; empty: null
  std::string code;   // For programs; empty: null
  int retry_after;    // Seconds; 0: no such header
};

}  // namespace tern::serve
