// The chat page, embedded at build from chat_page.html, and the policy it is served under.
#pragma once

#include <string>
#include <string_view>

namespace tern::serve {

extern const std::string_view kChatPage;

// Content-Security-Policy: the page's own script and style (by their hashes), calls to this server,
// and nothing else.
std::string ChatPagePolicy();

}  // namespace tern::serve
