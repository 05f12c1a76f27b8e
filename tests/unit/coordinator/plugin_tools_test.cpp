// bulkhead plugin: which program new and check become, and the list of what
// ships.
#include "plugin_tools.h"

#include <fstream>

#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

class PluginTools : public ::testing::Test {
 protected:
  PluginTools() {
    paths_.python_package = folder() / "package";
    paths_.python = folder() / "python";
    paths_.native_host = folder() / "native-host";
    paths_.source_plugins = folder() / "plugins";
    paths_.build_plugins = folder() / "built";
    add("python", "");
  }
  const std::filesystem::path& folder() const { return directory_.path(); }
  void add(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder() / name).parent_path());
    std::ofstream(folder() / name) << text;
  }

  ProgramPaths paths_;

 private:
  TemporaryDirectory directory_;
};

TEST_F(PluginTools, AreModulesOfThePackageThatHostsUse) {
  add("package/bulkhead/new.py", "");
  const auto tool = plugin_tool(paths_, "new", {"x", "--lang", "py"}, {"A=1", "PYTHONPATH=/mine"});
  ASSERT_TRUE(tool.ok());
  EXPECT_EQ(tool->argv,
            (std::vector<std::string>{paths_.python.string(), "-m", "bulkhead.new", "x", "--lang", "py"}));
  EXPECT_EQ(tool->environment,
            (std::vector<std::string>{"A=1", "PYTHONPATH=" + paths_.python_package.string() + ":/mine"}));
}

TEST_F(PluginTools, TellTheCheckWhereTheNativeHostIs) {
  add("package/bulkhead/check/__main__.py", "");
  const auto tool = plugin_tool(paths_, "check", {"a.so"}, {});
  ASSERT_TRUE(tool.ok());
  EXPECT_EQ(tool->argv, (std::vector<std::string>{paths_.python.string(), "-m", "bulkhead.check", "a.so",
                                                  "--native-host", paths_.native_host.string()}));
  EXPECT_EQ(tool->environment, std::vector<std::string>{"PYTHONPATH=" + paths_.python_package.string()});
}

TEST_F(PluginTools, SayWhatIsMissingInASentence) {
  EXPECT_EQ(plugin_tool(paths_, "new", {}, {}).error().message,
            "bulkhead plugin new needs " + (folder() / "package/bulkhead/new.py").string() +
                ", which is not there");
  add("package/bulkhead/new.py", "");
  paths_.python = folder() / "none";
  EXPECT_EQ(plugin_tool(paths_, "new", {}, {}).error().message, "bulkhead plugin new needs a Python and " +
                                                                    (folder() / "none").string() +
                                                                    " is none: run scripts/setup");
}

TEST_F(PluginTools, ListWhatShipsWithItsFirstSentenceAndItsHooks) {
  add("plugins/early.py",
      "\"\"\"Stops when the loss\ndoes not fall.\n\nMore.\n\"\"\"\nclass Early:\n  def on_validate_end(self, "
      "ctx):\n"
      "  def helper(self):\n");
  add("plugins/packed/__init__.py", "import os\n");
  add("plugins/_private.py", "\"\"\"Not a plugin.\"\"\"\n");
  add("plugins/README.md", "");
  add("plugins/noise.cpp",
      "// Noise: disturbs tokens, so\n// that it learns.\n#include <x>\n"
      "  void transform_train_batch(Batch& batch, Context& ctx) override {\n  void other(int) override;\n");
  add("built/noise.so", "");
  add("built/early.so", "");
  const auto plugins = shipped_plugins(paths_);
  ASSERT_EQ(plugins.size(), 4U);
  EXPECT_EQ(plugins[0].name, "early");
  EXPECT_EQ(plugins[0].language, "Python");
  EXPECT_EQ(plugins[0].summary, "Stops when the loss does not fall");
  EXPECT_EQ(plugins[0].hooks, std::vector<std::string>{"on_validate_end"});
  EXPECT_EQ(plugins[1].name, "early.so");
  EXPECT_EQ(plugins[2].name, "noise");
  EXPECT_EQ(plugins[2].language, "C++");
  EXPECT_EQ(plugins[2].summary, "Noise: disturbs tokens, so that it learns");
  EXPECT_EQ(plugins[2].hooks, std::vector<std::string>{"transform_train_batch"});
  EXPECT_EQ(plugins[3].name, "packed");
  EXPECT_EQ(plugins[3].summary, "");
  EXPECT_NE(describe(plugins).find("early     Python  Stops when the loss does not fall\n"),
            std::string::npos)
      << describe(plugins);
}

}  // namespace
}  // namespace bulkhead
