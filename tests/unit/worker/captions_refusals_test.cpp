// Folders, pictures, texts and numbers that are refused, and batches that
// plugins have broken: one sentence each.
#include <fstream>
#include <functional>

#include <gtest/gtest.h>

#include "data/captions.h"
#include "protocol/texts.h"
#include "support/pictures.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

// One good pair; each test breaks something.
class CaptionRefusal : public testing::Test {
 protected:
  CaptionRefusal() {
    config_.type = "captions";
    config_.path = folder_.path().string();
    config_.image_size = 2;
    config_.validation_fraction = 0;
    config_.batch_size = 2;
    write("good.png", png_file(2, 2, plain(4, {1, 2, 3})));
    write("good.txt", "good");
  }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_.path() / name, std::ios::binary) << bytes;
  }
  std::string failure(std::int64_t context = 8) const {
    const auto data = CaptionData::load(config_, context);
    return data ? "" : data.error().message;
  }
  std::string about(const std::string& name) const {
    return "data.path: " + (folder_.path() / name).string() + " ";
  }

  TemporaryDirectory folder_;
  DataConfig config_;
};

TEST_F(CaptionRefusal, DoesNotComeForAGoodFolder) { EXPECT_EQ(failure(), ""); }

TEST_F(CaptionRefusal, NamesAPictureWithoutCaption) {
  write("cat.jpg", jpeg_file(2, 2, plain(4, {1, 2, 3})));
  EXPECT_EQ(failure(), about("cat.jpg") + "has no caption: there is no cat.txt beside it");
}

TEST_F(CaptionRefusal, NamesAFolderThatIsEmptyMissingOrAFile) {
  fs::remove(folder_.path() / "good.png");
  EXPECT_EQ(failure(), "data.path: " + config_.path + " holds no .jpg, .jpeg or .png");
  config_.path += "/good.txt";
  EXPECT_NE(failure().find("is a file; captions are a folder"), std::string::npos) << failure();
  config_.path = (folder_.path() / "gone").string();
  EXPECT_EQ(failure(), about("gone") + "does not exist");
}

TEST_F(CaptionRefusal, NamesAPictureThatCannotBeRead) {
  write("bad.txt", "bad");
  write("bad.jpg", "a text that calls itself a picture");
  EXPECT_EQ(failure(), about("bad.jpg") + "is neither a JPEG nor a PNG picture");
  write("bad.jpg", "");
  EXPECT_EQ(failure(), about("bad.jpg") + "is empty");
  const std::string whole = jpeg_file(8, 8, plain(64, {1, 2, 3}));
  write("bad.jpg", whole.substr(0, whole.size() - 10));
  EXPECT_TRUE(failure().starts_with(about("bad.jpg") + "is not a whole JPEG picture: ")) << failure();
  write("bad.jpg", png_file(8000, 8001, Bytes(1001 * 8000), {PNG_COLOR_TYPE_GRAY, 1}));
  EXPECT_EQ(failure(), about("bad.jpg") + "has 8001×8000 pixels; at most 64 million are read");
}

TEST_F(CaptionRefusal, NamesACaptionThatIsNoText) {
  write("good.txt", " ab\xC3(");
  EXPECT_EQ(failure(), about("good.txt") + "is not UTF-8 text at byte 3");
  write("good.txt", std::string(kMaxCaptionBytes, 'x'));
  EXPECT_EQ(failure(), "");
  write("good.txt", std::string(kMaxCaptionBytes + 1, 'x'));
  EXPECT_EQ(failure(), about("good.txt") + "has a first line of 65537 bytes; a caption has at most 65536");
  fs::remove(folder_.path() / "good.txt");
  fs::create_directory(folder_.path() / "good.txt");
  EXPECT_NE(failure().find("good.txt is a folder"), std::string::npos) << failure();
}

TEST_F(CaptionRefusal, NamesAFileNameThatIsNotUtf8InReadableForm) {
  write("caf\xE9.png", png_file(2, 2, plain(4, {1, 2, 3})));
  EXPECT_EQ(failure(), "data.path: the file name \"" + (folder_.path() / "caf\xEF\xBF\xBD.png").string() +
                           "\" is not UTF-8");
}

TEST_F(CaptionRefusal, NamesTheKeyOfANumberThatCannotBeMeant) {
  EXPECT_EQ(failure(2), "model.context: 2 must be at least 3 for captions: a start, a token, an end");
  config_.batch_size = 1;
  EXPECT_EQ(failure(),
            "data.batch_size: 1 is too small for captions: the contrastive loss tells the pairs of a batch "
            "apart, so it needs at least 2");
  config_.image_size = 0;
  EXPECT_EQ(failure(), "data.image_size: 0 must be at least 1");
  config_.image_size = 2;
  config_.batch_size = 2;
  config_.test_fraction = 1;
  EXPECT_EQ(failure(), "data.test_fraction: must be at least 0 and below 1");
  config_.test_fraction = 0;
  config_.tokenizer = "clip";
  EXPECT_EQ(failure(), "data.tokenizer: 'clip' is neither char nor gpt2");
}

// What a plugin may have made of the samples.
class BrokenSamples : public CaptionRefusal {
 protected:
  BrokenSamples() {
    write("other.png", png_file(2, 2, plain(4, {9, 9, 9})));
    write("other.txt", "other");
    auto data = CaptionData::load(config_, 8);
    CHECK(data.ok(), data.error().message);
    data_ = std::make_unique<CaptionData>(std::move(*data));
    raw_ = data_->raw_samples(Split::kTrain, std::vector<std::int64_t>{0, 1});
  }
  std::string failure() const {
    const auto batch = data_->collate(raw_);
    return batch ? "" : batch.error().message;
  }
  Tensor& named(const std::string& name) {
    for (Tensor& tensor : raw_) {
      if (tensor.name == name) return tensor;
    }
    CHECK(false, name);
    return raw_.front();
  }
  void set_captions(const std::vector<std::string>& captions) {
    for (Tensor& tensor : pack_texts("captions", captions)) named(tensor.name) = tensor;
  }

  std::unique_ptr<CaptionData> data_;
  Batch raw_;
};

TEST_F(BrokenSamples, AreTakenWhenWhole) { EXPECT_EQ(failure(), ""); }

TEST_F(BrokenSamples, AreRefusedForImagesOfAnotherForm) {
  const std::string wanted = "; it must be images uint8[N,2,2,3]";
  named("images").dtype = DType::kInt8;
  EXPECT_EQ(failure(), "the batch of samples has images int8[2,2,2,3]" + wanted);
  named("images").dtype = DType::kUInt8;
  named("images").shape = {2, 3, 2, 2};
  EXPECT_EQ(failure(), "the batch of samples has images uint8[2,3,2,2]" + wanted);
  named("images").shape = {24};
  EXPECT_EQ(failure(), "the batch of samples has images uint8[24]" + wanted);
  named("images").shape = {2, 2, 2, 3};
  named("images").bytes.size = 23;
  EXPECT_NE(failure(), "");
  named("images").name = "pictures";
  EXPECT_EQ(failure(), "the batch of samples has no 'images'");
}

TEST_F(BrokenSamples, AreRefusedForCaptionsThatDoNotAddUp) {
  set_captions({"one"});
  EXPECT_EQ(failure(), "the batch of samples has 1 captions for 2 pictures");
  set_captions({"one", "tw\xFF"});
  EXPECT_EQ(failure(), "the batch of samples has a caption, number 1, that is not UTF-8 text at byte 2");
  set_captions({std::string(kMaxCaptionBytes + 1, 'x'), ""});
  EXPECT_EQ(failure(),
            "the batch of samples has a caption, number 0, of 65537 bytes; at most 65536 are taken");
  set_captions({"one", "two"});
  EXPECT_EQ(failure(), "");
}

TEST_F(BrokenSamples, AreRefusedForEndsThatLeadOutOfTheText) {
  set_captions({"one", "two"});
  const auto with_ends = [&](std::vector<std::int64_t> ends) {
    named("captions.ends").bytes =
        Blob::of(std::string(reinterpret_cast<const char*>(ends.data()), ends.size() * sizeof ends[0]));
    return failure();
  };
  EXPECT_EQ(with_ends({3, 6}), "");
  for (const auto& ends :
       std::vector<std::vector<std::int64_t>>{{3, 7}, {5, 4}, {-1, 6}, {3, 5}, {1 << 30, 6}}) {
    EXPECT_NE(with_ends(ends).find("captions that cannot be read"), std::string::npos) << ends[0];
  }
  named("captions.ends").name = "captions.begins";
  EXPECT_NE(failure().find("captions that cannot be read"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead
