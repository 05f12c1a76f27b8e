// A folder with a run file, a small data set of each kind, shipped plugins and
// an interpreter, for tests of what reads run files.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "run_file.h"
#include "support/temporary_directory.h"

namespace bulkhead {

class RunFileFolder : public ::testing::Test {
 protected:
  RunFileFolder() {
    for (const char* file : {"data/input.txt", "data/table.csv", "data/mnist/train-images-idx3-ubyte.gz",
                             "data/mnist/train-labels-idx1-ubyte.gz", "data/mnist/t10k-images-idx3-ubyte.gz",
                             "data/mnist/t10k-labels-idx1-ubyte.gz", "data/bpe/encoder.json",
                             "data/bpe/vocab.bpe", "shipped/early_stop.py", "shipped/saboteur.py",
                             "shipped/packed/__init__.py", "built/saboteur.so", "built/token_noise.so"}) {
      add(file, "");
    }
    add("my_plugins.py", "class EarlyStop(Plugin):\n  pass\n");
    add("python", "#!/bin/sh\n");
    std::filesystem::permissions(folder() / "python", std::filesystem::perms::owner_all);
    context_.plugins = {folder() / "shipped", folder() / "built", ""};
    context_.python = folder() / "python";
    context_.current_directory = folder();
  }

  const std::filesystem::path& folder() const { return directory_.path(); }

  std::filesystem::path add(const std::string& name, const std::string& text) {
    const auto path = folder() / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  // The shortest run file that is right, and `more`; `data` goes to the section data.
  static std::string right(const std::string& more = "", const std::string& data = "") {
    return "data: {type: text, path: data/input.txt" + data + "}\ntrain: {max_steps: 5}\n" + more;
  }

  Result<RunFile> read(const std::string& text, const std::vector<std::string>& overrides = {}) {
    return read_run_file(add("run.yaml", text), overrides, context_);
  }

  // The refusal of `text`, with the folder's name taken out; empty if it is
  // accepted.
  std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
    const auto run = read(text, overrides);
    return run ? "" : without_folder(run.error().message);
  }

  std::string without_folder(std::string text) const {
    const std::string name = folder().string() + "/";
    for (auto at = text.find(name); at != std::string::npos; at = text.find(name))
      text.erase(at, name.size());
    return text;
  }

  RunFileContext context_;

 private:
  TemporaryDirectory directory_;
};

}  // namespace bulkhead
