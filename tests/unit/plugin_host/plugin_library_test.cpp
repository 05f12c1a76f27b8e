#include "plugin_library.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "elf_note.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

const std::string kPlugins = BULKHEAD_BUILD_DIR "/tests/plugins/";

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string sentence_of(const std::string& path) {
  const auto library = PluginLibrary::open(path);
  return library ? "it was opened" : library.error().message;
}

// A file of its own for each test.
class PluginLibraryTest : public testing::Test {
 protected:
  std::string write(const std::string& bytes) const {
    const std::string path = (directory_.path() / "x.so").string();
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }

  TemporaryDirectory directory_;
};

TEST_F(PluginLibraryTest, OpensAPluginAndHashesItsFile) {
  const auto library = PluginLibrary::open(kPlugins + "no_arguments.so");
  ASSERT_TRUE(library.ok()) << library.error().message;
  EXPECT_EQ(abi::view(library->table().class_name), "NoArguments");
  EXPECT_EQ(library->checksum().size(), 64u);
  EXPECT_NE(library->compiler().find("libstdc++"), std::string::npos) << library->compiler();
}

TEST_F(PluginLibraryTest, RefusesAFileThatIsNotThere) {
  const std::string path = (directory_.path() / "none.so").string();
  EXPECT_EQ(sentence_of(path), "cannot read " + path + ": No such file or directory");
  EXPECT_EQ(sentence_of(directory_.path().string()),
            "cannot read " + directory_.path().string() + ": Is a directory");
  EXPECT_EQ(PluginLibrary::open(path).error().code, ErrorCode::kUnavailable);
}

TEST_F(PluginLibraryTest, RefusesAFileThatIsNoLibrary) {
  const std::string path = write("import torch\n");
  EXPECT_EQ(sentence_of(path), path + " is not a shared library");
  EXPECT_EQ(sentence_of(write("")), path + " is not a shared library");
}

TEST_F(PluginLibraryTest, RefusesALibraryWithoutTheNoteWithoutRunningIt) {
  const std::string path = kPlugins + "no_note.so";
  EXPECT_EQ(sentence_of(path),
            path + " is not a bulkhead plugin: it needs the line BULKHEAD_PLUGIN(YourClass)");
}

TEST_F(PluginLibraryTest, RefusesAnotherAbiWithoutRunningIt) {
  const std::string path = kPlugins + "wrong_abi.so";
  EXPECT_EQ(sentence_of(path),
            path +
                " was built for plugin ABI 999, this host has 5; rebuild it with this bulkhead's "
                "bulkhead/plugin.h");
  EXPECT_EQ(PluginLibrary::open(path).error().code, ErrorCode::kMismatch);
}

TEST_F(PluginLibraryTest, RefusesALibraryWithoutTheEntryPoint) {
  const std::string path = kPlugins + "no_entry.so";
  EXPECT_EQ(sentence_of(path),
            path + " does not export bulkhead_plugin_v5; it needs the line BULKHEAD_PLUGIN(YourClass)");
}

TEST_F(PluginLibraryTest, NamesTheSymbolThatTheLoaderMisses) {
  const std::string sentence = sentence_of(kPlugins + "unresolved.so");
  EXPECT_NE(sentence.find("symbol_that_nobody_defines"), std::string::npos) << sentence;
}

TEST_F(PluginLibraryTest, RefusesEveryTruncationOfALibrary) {
  const std::string whole = bytes_of(kPlugins + "echo.so");
  const std::string path = "x.so";
  ASSERT_TRUE(read_elf_note(whole, path).ok());
  EXPECT_EQ(read_elf_note(std::string_view(whole).substr(0, whole.size() / 2), path).error().message,
            "x.so is truncated: the library is longer than the file");
  for (std::size_t size = 0; size < whole.size(); size += size < 4096 ? 1 : 997) {
    EXPECT_FALSE(read_elf_note(std::string_view(whole).substr(0, size), path).ok()) << size;
  }
}

TEST_F(PluginLibraryTest, SurvivesAnyByteOfTheHeadersBeingWrong) {
  const std::string whole = bytes_of(kPlugins + "no_arguments.so");
  for (std::size_t at = 0; at < 1024; ++at) {
    for (const char wrong : {'\x00', '\x7f', '\xff'}) {
      std::string broken = whole;
      broken[at] = wrong;
      const auto note = read_elf_note(broken, "x.so");  // must not crash, whatever it says
      if (!note) {
        EXPECT_EQ(note.error().code, ErrorCode::kMalformed);
      }
    }
  }
}

TEST_F(PluginLibraryTest, RefusesAnotherMachine) {
  std::string whole = bytes_of(kPlugins + "no_arguments.so");
  whole[18] = '\x08';  // e_machine: MIPS
  whole[19] = '\x00';
  const auto note = read_elf_note(whole, "x.so");
  ASSERT_FALSE(note.ok());
  EXPECT_NE(
      note.error().message.find("x.so is a library for another kind of machine (ELF machine 8, this one is"),
      std::string::npos)
      << note.error().message;
}

TEST_F(PluginLibraryTest, RefusesAnObjectFile) {
  std::string whole = bytes_of(kPlugins + "no_arguments.so");
  whole[16] = '\x01';  // e_type: relocatable
  EXPECT_EQ(read_elf_note(whole, "x.so").error().message,
            "x.so is an ELF file but not a shared library; link it with -shared");
}

}  // namespace
}  // namespace bulkhead
