// Plug-ins: opened where they are, else the loader's words of every place.
#include "base/plugin.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace tern {
namespace {

TEST(PluginTest, OnTheLoadersPath) {
  std::string why_not = "old";
  void* library = OpenPlugin("libm.so.6", RTLD_NOW | RTLD_LOCAL, &why_not);
  ASSERT_NE(library, nullptr) << why_not;
  EXPECT_NE(dlsym(library, "cos"), nullptr);
  dlclose(library);
}

TEST(PluginTest, NowhereIsToldOfThreePlaces) {
  std::string why_not;
  EXPECT_EQ(OpenPlugin("libtern_no_such.so", RTLD_NOW | RTLD_LOCAL, &why_not), nullptr);
  EXPECT_EQ(std::count(why_not.begin(), why_not.end(), ';'), 2) << why_not;
  EXPECT_NE(why_not.find("../lib/libtern_no_such.so"), std::string::npos) << why_not;
}

}  // namespace
}  // namespace tern
