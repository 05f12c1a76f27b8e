#include "checkpoint_list.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

TEST(CheckpointList, TakesTheCompleteOneOfTheMostSteps) {
  const TemporaryDirectory directory;
  EXPECT_EQ(newest_checkpoint(directory.path() / "none"), std::nullopt);
  for (const char* name :
       {"step-00000050", "step-00000100", "step-00000200", ".step-00000300.writing", "other"}) {
    fs::create_directory(directory.path() / name);
    if (std::string(name) != "step-00000200")
      std::ofstream(directory.path() / name / "MANIFEST.json") << "{}";
  }
  EXPECT_EQ(newest_checkpoint(directory.path()), directory.path() / "step-00000100");
}

TEST(CheckpointList, ReadsTheStepFromTheName) {
  EXPECT_EQ(step_of_checkpoint("/c/step-00000100"), 100);
  EXPECT_EQ(step_of_checkpoint("/c/step-00000100/"), 100);
  EXPECT_EQ(step_of_checkpoint("/c/step-12x"), std::nullopt);
  EXPECT_EQ(step_of_checkpoint("/c/epoch-3"), std::nullopt);
}

}  // namespace
}  // namespace bulkhead
