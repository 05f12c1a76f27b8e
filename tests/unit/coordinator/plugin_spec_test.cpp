// What `use` resolves to, and what it cannot.
#include "plugin_spec.h"

#include "run_file_fixture.h"

namespace bulkhead {
namespace {

class PluginUse : public RunFileFolder {
 protected:
  PluginUse() {
    add("native.so", "");
    add("two.py", "class A(Plugin):\n  pass\nclass B(bulkhead.Plugin):\n  pass\n");
    add("pack/__init__.py", "");
    add("bare/readme", "");
  }

  // "language file module class name" of what `use` resolves to, or the refusal.
  std::string resolved(const std::string& use) const {
    const auto spec = resolve_plugin(use, folder(), context_.plugins);
    if (!spec) return without_folder(spec.error().message);
    return without_folder(spec->language + " [" + spec->file + "] [" + spec->module + "] [" +
                          spec->class_name + "] " + spec->name);
  }
};

TEST_F(PluginUse, FindsEveryFormWhereItIs) {
  EXPECT_EQ(resolved("my_plugins.py:EarlyStop"), "python [my_plugins.py] [] [EarlyStop] EarlyStop");
  EXPECT_EQ(resolved("my_plugins.py"), "python [my_plugins.py] [] [] EarlyStop");
  EXPECT_EQ(resolved("two.py"), "python [two.py] [] [] two");
  EXPECT_EQ(resolved("pack/:Thing"), "python [pack] [] [Thing] Thing");
  EXPECT_EQ(resolved("pack:Thing"), "python [pack] [] [Thing] Thing");
  EXPECT_EQ(resolved("./pack/"), "python [pack] [] [] pack");
  EXPECT_EQ(resolved("pkg.mod:Class"), "python [] [pkg.mod] [Class] Class");
  EXPECT_EQ(resolved("pkg.mod.Class"), "python [] [pkg.mod] [Class] Class");
  EXPECT_EQ(resolved("native.so"), "cpp [native.so] [] [] native");
}

TEST_F(PluginUse, FindsShippedOnesByNamePythonFirst) {
  EXPECT_EQ(resolved("early_stop"), "python [shipped/early_stop.py] [] [] early_stop");
  EXPECT_EQ(resolved("packed"), "python [shipped/packed] [] [] packed");
  EXPECT_EQ(resolved("saboteur"), "python [shipped/saboteur.py] [] [] saboteur");
  EXPECT_EQ(resolved("saboteur.so"), "cpp [built/saboteur.so] [] [] saboteur");
  EXPECT_EQ(resolved("token_noise"), "cpp [built/token_noise.so] [] [] token_noise");
  EXPECT_EQ(resolved("early_stop:Other"), "python [shipped/early_stop.py] [] [Other] early_stop");
}

TEST_F(PluginUse, PrefersAFileBesideTheRunFileToAShippedOne) {
  add("saboteur.so", "");
  EXPECT_EQ(resolved("saboteur.so"), "cpp [saboteur.so] [] [] saboteur");
}

TEST_F(PluginUse, IsRefusedInOneSentenceThatHelps) {
  EXPECT_EQ(resolved("my_plugin.py:X"), "my_plugin.py does not exist; did you mean \"my_plugins.py\"?");
  EXPECT_EQ(resolved("natvie.so"), "natvie.so does not exist; did you mean \"native.so\"?");
  EXPECT_EQ(resolved("native.so:X"), "a native plugin has no class name: write native.so");
  EXPECT_EQ(resolved("token_noise:X"), "a native plugin has no class name: write token_noise");
  EXPECT_EQ(resolved("token_nose"), "no shipped plugin is called token_nose; did you mean \"token_noise\"?");
  EXPECT_EQ(
      resolved("zzzzzzzzzzzz"),
      "no shipped plugin is called zzzzzzzzzzzz; shipped ones: early_stop, packed, saboteur, token_noise");
  EXPECT_EQ(resolved("two"), "no shipped plugin is called two; did you mean \"two.py\"?");
  EXPECT_EQ(resolved("my_plugins.py:"), "after the colon of \"my_plugins.py:\" a class name must follow");
  EXPECT_EQ(resolved("my_plugins.py:a b"),
            "after the colon of \"my_plugins.py:a b\" a class name must follow");
  EXPECT_EQ(resolved(":X"), "\":X\" names no plugin");
  EXPECT_EQ(resolved("bare/:X"), "the folder bare has no __init__.py, so it is no package");
  EXPECT_EQ(resolved("data/input.txt"),
            "data/input.txt is neither a .py file, a .so file nor a package folder");
  EXPECT_EQ(resolved("http://x/y"),
            "http://x/y is no form of plugin: only hf:// and ms:// name a plugin elsewhere");
}

TEST_F(PluginUse, OfCodeFromOutsideNeedsTrustSpelledExactly) {
  for (const char* trust : {"", "0", "true", "01", " 1", "yes"}) {
    context_.plugins.trust_remote_code = trust;
    for (const char* use : {"hf://user/repo", "ms://user/repo"}) {
      EXPECT_EQ(resolved(use), std::string(use) +
                                   " is code from outside and is not trusted; set "
                                   "BULKHEAD_TRUST_REMOTE_CODE=1 if you trust it")
          << trust;
    }
  }
  context_.plugins.trust_remote_code = "1";
  EXPECT_EQ(resolved("ms://user/repo"),
            "downloading ms://user/repo is not supported yet; fetch the repository and name its folder");
}

}  // namespace
}  // namespace bulkhead
