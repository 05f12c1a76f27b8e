#include "private_directory.h"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

TEST(PrivateDirectory, IsOursAloneAndGoneAtTheEnd) {
  const TemporaryDirectory parent;
  fs::path path;
  {
    const auto directory = PrivateDirectory::make_under(parent.path());
    ASSERT_TRUE(directory.ok());
    path = directory->path();
    EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_all);
    EXPECT_EQ(directory->endpoint("control"), "ipc://" + path.string() + "/control");
    std::ofstream(path / "left over") << "";
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(PrivateDirectory, IsShortEnoughForASocketPath) {
  const auto directory = PrivateDirectory::make();
  ASSERT_TRUE(directory.ok());
  EXPECT_LT(directory->path().string().size(), 60U);
}

TEST(PrivateDirectory, SaysWhereItCannotBeMade) {
  const auto directory = PrivateDirectory::make_under("/nowhere");
  ASSERT_FALSE(directory.ok());
  EXPECT_EQ(directory.error().message,
            "cannot make a private directory under /nowhere: No such file or directory");
}

}  // namespace
}  // namespace bulkhead
