// MNIST as it is, and IDX files damaged in every way that has a check.
#include "data/mnist.h"

#include <filesystem>
#include <fstream>
#include <unistd.h>
#include <zlib.h>

#include <gtest/gtest.h>

#include "data/files.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>((value >> shift) & 0xFFU));
  return bytes;
}

std::string image_file(std::uint32_t count, std::uint32_t height, std::uint32_t width) {
  return big_endian(2051) + big_endian(count) + big_endian(height) + big_endian(width) +
         std::string(std::size_t{count} * height * width, '\x7f');
}

std::string label_file(const std::string& labels) {
  return big_endian(2049) + big_endian(static_cast<std::uint32_t>(labels.size())) + labels;
}

void write_gzip(const fs::path& path, const std::string& bytes) {
  gzFile file = gzopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())), static_cast<int>(bytes.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
}

// A small valid set; each test replaces one file.
class SmallMnist : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_);
    write_gzip(folder_ / kTrainImages, image_file(3, 2, 4));
    write_gzip(folder_ / kTrainLabels, label_file({'\0', '\1', '\2'}));
    write_gzip(folder_ / kTestImages, image_file(2, 2, 4));
    write_gzip(folder_ / kTestLabels, label_file({'\2', '\0'}));
  }
  void TearDown() override { fs::remove_all(folder_); }

  Result<ImageData> load(double validation = -1) const {
    DataConfig config;
    config.type = "mnist";
    config.path = folder_.string();
    config.validation_fraction = validation;
    config.test_fraction = 0.5;  // of no account here
    return load_mnist(config);
  }
  std::string failure() const {
    const auto data = load();
    return data ? "" : data.error().message;
  }
  std::string path_of(const char* name) const { return "data.path: " + (folder_ / name).string(); }

  static constexpr const char* kTrainImages = "train-images-idx3-ubyte.gz";
  static constexpr const char* kTrainLabels = "train-labels-idx1-ubyte.gz";
  static constexpr const char* kTestImages = "t10k-images-idx3-ubyte.gz";
  static constexpr const char* kTestLabels = "t10k-labels-idx1-ubyte.gz";
  fs::path folder_ =
      fs::path(testing::TempDir()) / (std::string("mnist_") + std::to_string(getpid()) + "_" +
                                      testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST(Mnist, HasItsKnownCountsAndFirstLabels) {
  DataConfig config;
  config.type = "mnist";
  config.path = BULKHEAD_TEST_DATA "/mnist";
  config.validation_fraction = -1;
  const auto data = load_mnist(config);
  ASSERT_TRUE(data) << data.error().message;
  EXPECT_EQ(data->train.count, 60000);
  EXPECT_EQ(data->test.count, 10000);
  EXPECT_EQ(data->part(Split::kTrain).range.count, 60000);
  EXPECT_EQ(data->part(Split::kValidation).range.count, 10000);
  EXPECT_EQ(data->height, 28);
  EXPECT_EQ(data->width, 28);
  EXPECT_EQ(data->classes, 10);
  EXPECT_EQ(data->train.labels.substr(0, 5), std::string("\5\0\4\1\x9", 5));
  EXPECT_EQ(data->part(Split::kValidation).set.labels.substr(0, 5), std::string("\7\2\1\0\4", 5));
}

TEST_F(SmallMnist, IsReadWhenWhole) {
  const auto data = load();
  ASSERT_TRUE(data) << data.error().message;
  EXPECT_EQ(data->classes, 3);
  EXPECT_EQ(data->train.pixels.size(), 24U);
}

TEST_F(SmallMnist, ValidatesOnTheTestFilesUnlessAFractionIsGiven) {
  const auto data = load();
  ASSERT_TRUE(data) << data.error().message;
  const auto validation = data->part(Split::kValidation);
  EXPECT_EQ(&validation.set, &data->part(Split::kTest).set);
  EXPECT_EQ(validation.range.first, 0);
  EXPECT_EQ(validation.range.count, 2);
  EXPECT_EQ(data->part(Split::kTrain).range.count, 3);
}

TEST_F(SmallMnist, ValidatesOnTheEndOfTheTrainingFilesWhereAFractionIsGiven) {
  const auto data = load(0.34);
  ASSERT_TRUE(data) << data.error().message;
  const auto validation = data->part(Split::kValidation);
  EXPECT_EQ(&validation.set, &data->train);
  EXPECT_EQ(validation.range.first, 1);
  EXPECT_EQ(validation.range.count, 2);
  EXPECT_EQ(data->part(Split::kTrain).range.count, 1);
  EXPECT_EQ(data->part(Split::kTest).range.count, 2);

  const auto without = load(0);
  ASSERT_TRUE(without) << without.error().message;
  EXPECT_EQ(without->part(Split::kValidation).range.count, 0);
  EXPECT_EQ(without->part(Split::kTrain).range.count, 3);
}

TEST_F(SmallMnist, RefusesAFractionThatLeavesNoImageForTraining) {
  const auto data = load(0.99);
  ASSERT_FALSE(data);
  EXPECT_EQ(data.error().message,
            "data.validation_fraction: leaves no image of " + folder_.string() + " for training");
}

TEST_F(SmallMnist, NamesAMissingFile) {
  fs::remove(folder_ / kTestLabels);
  EXPECT_EQ(failure(), path_of(kTestLabels) + " does not exist");
}

TEST_F(SmallMnist, NamesAGzipFileThatIsCutShort) {
  const auto file = folder_ / kTrainImages;
  fs::resize_file(file, fs::file_size(file) / 2);
  EXPECT_EQ(failure(), path_of(kTrainImages) + " is not a whole gzip file: the file is cut short");
}

TEST_F(SmallMnist, NamesAGzipFileWithADamagedByte) {
  const auto file = folder_ / kTrainLabels;
  const auto in_the_checksum = static_cast<std::streamoff>(fs::file_size(file)) - 6;
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(in_the_checksum);
  const int byte = stream.get();
  stream.seekp(in_the_checksum);
  stream.put(static_cast<char>(byte ^ 0xFF));
  stream.close();
  EXPECT_NE(failure().find(path_of(kTrainLabels) + " is not a whole gzip file"), std::string::npos)
      << failure();
}

TEST_F(SmallMnist, NamesAWrongMagicNumber) {
  write_gzip(folder_ / kTrainImages, label_file({'\0', '\1', '\2'}) + std::string(16, '\0'));
  EXPECT_NE(failure().find("begins with the number 2049; an IDX file of images begins with 2051"),
            std::string::npos)
      << failure();
}

TEST_F(SmallMnist, RefusesCountsThatDisagreeWithTheBytes) {
  auto bytes = image_file(3, 2, 4);
  write_gzip(folder_ / kTrainImages, bytes + "x");
  EXPECT_NE(failure().find("holds 25 values, but its header says 24"), std::string::npos) << failure();
  bytes.pop_back();
  write_gzip(folder_ / kTrainImages, bytes);
  EXPECT_NE(failure().find("holds 23 values, but its header says 24"), std::string::npos) << failure();
  write_gzip(folder_ / kTrainImages, bytes.substr(0, 10));
  EXPECT_NE(failure().find("shorter than its own header"), std::string::npos) << failure();
}

TEST_F(SmallMnist, RefusesCountsThatOverflow) {
  write_gzip(folder_ / kTrainImages, big_endian(2051) + big_endian(~0U) + big_endian(~0U) + big_endian(~0U));
  EXPECT_NE(failure().find("no, or too many, values"), std::string::npos) << failure();
  write_gzip(folder_ / kTrainImages, image_file(0, 2, 4));
  EXPECT_NE(failure().find("no, or too many, values"), std::string::npos) << failure();
}

TEST_F(SmallMnist, RefusesFilesThatDoNotBelongTogether) {
  write_gzip(folder_ / kTrainLabels, label_file({'\0', '\1'}));
  EXPECT_NE(failure().find("has 2 labels for 3 images"), std::string::npos) << failure();
  write_gzip(folder_ / kTrainLabels, label_file({'\0', '\1', '\2'}));
  write_gzip(folder_ / kTestImages, image_file(2, 4, 2));
  EXPECT_NE(failure().find("another size than the training images"), std::string::npos) << failure();
  write_gzip(folder_ / kTestImages, image_file(2, 2, 4));
  write_gzip(folder_ / kTestLabels, label_file({'\3', '\0'}));
  EXPECT_NE(failure().find("labels that the training set lacks"), std::string::npos) << failure();
}

TEST_F(SmallMnist, StopsUnpackingAtALimit) {
  const auto bytes = read_gzip(folder_ / kTrainImages, "data.path", 10);
  ASSERT_FALSE(bytes);
  EXPECT_NE(bytes.error().message.find("unpacks to more than 10 bytes"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead
