// Sample hooks: one call, a micro-batch, a hook for each sample of it.
#include "sample_batch.h"

#include <cstring>

#include <gtest/gtest.h>

#include "protocol/rng.h"
#include "protocol/texts.h"
#include "support/loaded_plugin.h"

namespace bulkhead {
namespace {

Tensor numbers(const std::vector<std::int64_t>& values) {
  std::string bytes(values.size() * sizeof(std::int64_t), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return {"sample", DType::kInt64, {static_cast<std::int64_t>(values.size())}, Blob::of(bytes)};
}

// Images of 2 x 1 pixels; the i-th is i + 1 everywhere.
Call call_of(const std::string& hook, const std::vector<std::int64_t>& samples,
             std::vector<std::string> captions) {
  Call call;
  call.hook = hook;
  call.seq = Seq{5};
  call.context.epoch = 3;
  std::string pixels;
  std::vector<std::string> paths;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    pixels += std::string(6, static_cast<char>(i + 1));
    paths.push_back("ship" + std::to_string(i) + ".png");
  }
  call.batch = {
      {"images", DType::kUInt8, {static_cast<std::int64_t>(samples.size()), 2, 1, 3}, Blob::of(pixels)}};
  for (Tensor& tensor : pack_texts("captions", captions)) call.batch.push_back(std::move(tensor));
  for (Tensor& tensor : pack_texts("paths", paths)) call.batch.push_back(std::move(tensor));
  call.batch.push_back(numbers(samples));
  return call;
}

const std::vector<std::string> kUntouched{"captions", "captions.ends", "paths", "paths.ends", "sample"};

TEST(SampleHooks, SeeEachSampleAndChangeImagesSeededByTheirNumber) {
  LoadedPlugin plugin(load_of("samples"));
  const Reply reply = plugin.run(call_of("transform_image", {8, 5, 6}, {"a", "b", "c"}));
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  EXPECT_EQ(reply.seq, Seq{5});
  EXPECT_EQ(reply.hook, "transform_image");
  EXPECT_EQ(plugin.logged(), "8 ship0.png 2x1 1\n5 ship1.png 2x1 2\n6 ship2.png 2x1 3\n");
  EXPECT_EQ(reply.kept, kUntouched);
  ASSERT_EQ(describe(reply.batch), "images uint8[3,2,1,3]");
  const auto first_pixel = [](std::int64_t sample) {
    return static_cast<char>(Philox(sample_key(42, "mine", "transform_image", 3, sample)).below(256));
  };
  std::string expected = std::string(6, 1) + std::string(6, 2) + std::string(6, 3);
  expected[0] = first_pixel(8);
  expected[12] = first_pixel(6);
  EXPECT_EQ(reply.batch[0].bytes.text(), expected);
}

TEST(SampleHooks, KeepABatchInWhichNothingChanged) {
  LoadedPlugin plugin(load_of("samples"));
  const Reply images = plugin.run(call_of("transform_image", {1, 3}, {"a", "b"}));
  EXPECT_TRUE(images.batch.empty());
  EXPECT_EQ(images.kept.size(), 6u);
  const Reply captions = plugin.run(call_of("transform_caption", {1, 3}, {"same", "same"}));
  EXPECT_TRUE(captions.batch.empty());
  EXPECT_EQ(captions.kept.size(), 6u);
  const Reply none = plugin.run(call_of("transform_image", {}, {}));
  EXPECT_FALSE(none.failure) << none.failure->message;
  EXPECT_EQ(none.kept.size(), 6u);
}

TEST(SampleHooks, ChangeCaptionsWhicheverRankAndStepHandlesThem) {
  LoadedPlugin plugin(load_of("samples"));
  Call call = call_of("transform_caption", {4, 9}, {"a ship", "same"});
  const Reply reply = plugin.run(call);
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  const auto draw = Philox(sample_key(42, "mine", "transform_caption", 3, 4)).below(1000);
  EXPECT_EQ(*unpack_texts(reply.batch, "captions"),
            (std::vector<std::string>{"a ship of ship0.png " + std::to_string(draw), "same"}));
  EXPECT_EQ(reply.kept, (std::vector<std::string>{"images", "paths", "paths.ends", "sample"}));
  call.seed_rank = 1;
  call.context.global_step = 17;
  EXPECT_EQ(*unpack_texts(plugin.run(call).batch, "captions"), *unpack_texts(reply.batch, "captions"));
}

TEST(SampleHooks, ChangeImageAndCaptionTogether) {
  LoadedPlugin plugin(load_of("samples"));
  const Reply reply = plugin.run(call_of("transform_sample", {4, 9}, {"a", "b"}));
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  EXPECT_EQ(describe(reply.batch), "images uint8[2,2,1,3], captions uint8[8], captions.ends int64[2]");
  EXPECT_EQ(reply.batch[0].bytes.text(), std::string(12, 9));
}

TEST(SampleHooks, FailTheWholeBatchWithOneSample) {
  LoadedPlugin plugin(load_of("samples"));
  const Reply thrown = plugin.run(call_of("transform_image", {8, 13, 6}, {"a", "b", "c"}));
  ASSERT_TRUE(thrown.failure);
  EXPECT_EQ(thrown.failure->message, "thirteen");
  EXPECT_EQ(thrown.seq, Seq{5});
  EXPECT_TRUE(thrown.batch.empty() && thrown.kept.empty());
  EXPECT_EQ(plugin.run(call_of("transform_caption", {1}, {"not text"})).failure->message,
            "transform_caption gave a caption that is not UTF-8");
  EXPECT_EQ(plugin.run(call_of("transform_caption", {1}, {"long"})).failure->message,
            "transform_caption gave a caption of 65537 bytes; at most 65536 are carried");
}

std::string complaint(Call call, const std::string& without) {
  std::erase_if(call.batch, [&](const Tensor& tensor) { return tensor.name == without; });
  const auto batch = SampleBatch::of(call);
  return batch ? "it was taken" : batch.error().message;
}

TEST(SampleBatch, NeedsWhatItsHookNeeds) {
  const Call image = call_of("transform_image", {1}, {"a"});
  EXPECT_EQ(complaint(image, "captions"), "it was taken");
  EXPECT_EQ(complaint(image, "images"),
            "the rank sent no batch for transform_image: it needs \"images\", uint8 [N, H, W, 3]");
  EXPECT_EQ(complaint(image, "sample"),
            "the rank sent no batch for transform_image: it needs \"sample\", int64 with one dimension");
  const Call caption = call_of("transform_caption", {1}, {"a"});
  EXPECT_EQ(complaint(caption, "images"), "it was taken");
  EXPECT_EQ(
      complaint(caption, "paths.ends"),
      "the rank sent no batch for transform_caption: \"paths.ends\" is not in the batch; a list of texts "
      "needs it");
  EXPECT_EQ(
      complaint(call_of("transform_sample", {1, 2}, {"a"}), ""),
      "the rank sent no batch for transform_sample: \"captions\" and \"sample\" are of different lengths");
  LoadedPlugin plugin(load_of("samples"));
  Call lacking = image;
  lacking.batch.erase(lacking.batch.begin());
  EXPECT_TRUE(plugin.run(lacking).failure);
  EXPECT_EQ(plugin.run(lacking).seq, Seq{5});
}

TEST(SampleBatch, RefusesAnImageWhereThereWasNone) {
  Call call = call_of("transform_caption", {1}, {"a"});
  call.batch.erase(call.batch.begin());
  auto batch = SampleBatch::of(call);
  ASSERT_TRUE(batch.ok());
  const Tensor image{"image", DType::kUInt8, {}, Blob::of(std::string(1, 'x'))};
  EXPECT_EQ(batch->take(0, {image}, {}),
            "an image must keep the shape and type that came, not become image uint8[]");
}

TEST(SampleBatch, RefusesAnImageOfAnotherShapeOrType) {
  const Call call = call_of("transform_image", {1, 2}, {"a", "b"});
  auto batch = SampleBatch::of(call);
  ASSERT_TRUE(batch.ok());
  const Tensor small{"image", DType::kUInt8, {1, 1, 3}, Blob::of(std::string(3, 'x'))};
  EXPECT_EQ(batch->take(1, {small}, {}),
            "an image must keep the shape and type that came, not become image uint8[1,1,3]");
  const Tensor fine{"image", DType::kUInt8, {2, 1, 3}, Blob::of(std::string(6, 'x'))};
  EXPECT_EQ(batch->take(1, {fine}, {}), "");
  EXPECT_EQ(batch->take(0, {}, "a caption that nobody asked for"), "");
  Reply reply;
  batch->give(reply);
  ASSERT_EQ(reply.batch.size(), 1u);
  EXPECT_EQ(reply.batch.at(0).bytes.text(), std::string(6, 1) + "xxxxxx");
}

}  // namespace
}  // namespace bulkhead
