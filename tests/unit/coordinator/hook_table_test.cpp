// The hook table of README.md is the one in code.
#include "hook_table.h"

#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "protocol/hooks.h"

namespace bulkhead {
namespace {

TEST(HookTable, IsTheOneInTheReadme) {
  std::ifstream in(BULKHEAD_SOURCE_DIR "/README.md");
  const std::string page(std::istreambuf_iterator<char>(in), {});
  const std::string begin = "<!-- hooks: what `bulkhead hooks --markdown` prints -->\n";
  const std::size_t from = page.find(begin);
  const std::size_t to = page.find("<!-- hooks end -->");
  ASSERT_NE(from, std::string::npos);
  ASSERT_NE(to, std::string::npos);
  EXPECT_EQ(page.substr(from + begin.size(), to - from - begin.size()), hooks_markdown())
      << "paste the output of `bulkhead hooks --markdown` there";
}

TEST(HookTable, HasALineForEveryHook) {
  const std::string text = hooks_text();
  for (const HookInfo& hook : all_hooks()) {
    EXPECT_NE(text.find(std::string(hook.when)), std::string::npos) << hook.name;
    EXPECT_NE(hooks_markdown().find("| `" + std::string(hook.name) + "` |"), std::string::npos);
  }
}

}  // namespace
}  // namespace bulkhead
