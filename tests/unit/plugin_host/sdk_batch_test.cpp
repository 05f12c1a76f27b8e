#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <stdexcept>

#include <gtest/gtest.h>

#include "bulkhead/plugin.h"

namespace {

using bulkhead::Batch;
using bulkhead::BFloat16;
using bulkhead::Half;
using bulkhead::Shape;
namespace abi = bulkhead::abi;

template <class Work>
std::string sentence_of(const Work& work) {
  try {
    work();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "nothing was thrown";
}

// Two tensors; `labels` is the second column of a 2 × 3 matrix.
struct Input {
  std::array<std::int64_t, 6> ids{0, 1, 2, 3, 4, 5};
  std::array<float, 6> matrix{0, 1, 2, 3, 4, 5};
  Shape ids_shape{2, 3};
  Shape ids_strides{3, 1};
  Shape column_shape{2};
  Shape column_strides{3};
  std::array<abi::Tensor, 2> tensors{{
      {abi::text("input_ids"), abi::DType::kInt64, 2, ids_shape.data(), ids_strides.data(), ids.data()},
      {abi::text("labels"), abi::DType::kFloat32, 1, column_shape.data(), column_strides.data(),
       matrix.data() + 1},
  }};
};

// What a host would have got.
struct Received {
  std::vector<std::string> kept;
  std::map<std::string, std::pair<const void*, Shape>> put;
  std::map<std::string, std::string> pieces;
  std::vector<std::pair<void*, void (*)(void*)>> owners;
  abi::Host host{};

  Received() {
    host.self = this;
    host.keep = [](void* self, abi::Text name) {
      static_cast<Received*>(self)->kept.emplace_back(abi::view(name));
    };
    host.put = [](void* self, const abi::Tensor* tensor, void* owner, void (*release)(void*)) {
      static_cast<Received*>(self)->put[std::string(abi::view(tensor->name))] = {
          tensor->data, Shape(tensor->shape, tensor->shape + tensor->dims)};
      static_cast<Received*>(self)->owners.emplace_back(owner, release);
    };
    host.piece = [](void* self, const abi::Tensor* tensor, abi::Text of, std::int64_t offset) {
      const auto listed = [&](const std::int64_t* numbers) {
        std::string text;
        for (int i = 0; i < tensor->dims; ++i) text += (i > 0 ? "," : "") + std::to_string(numbers[i]);
        return "[" + text + "]";
      };
      static_cast<Received*>(self)->pieces[std::string(abi::view(tensor->name))] =
          std::string(abi::view(of)) + "+" + std::to_string(offset) + " " + listed(tensor->shape) +
          " strides " + listed(tensor->strides);
    };
  }
  ~Received() {
    for (const auto& [owner, release] : owners) release(owner);
  }
};

TEST(SdkBatch, ReadsTypedAndStridedWithoutACopy) {
  Input input;
  const Batch batch(input.tensors.data(), input.tensors.size());
  EXPECT_EQ(batch.names(), (std::vector<std::string>{"input_ids", "labels"}));
  const auto ids = batch.view<const std::int64_t>("input_ids");
  EXPECT_EQ(ids.data(), input.ids.data());
  EXPECT_EQ(ids(1, 2), 5);
  EXPECT_EQ(ids.size(), 6);
  EXPECT_EQ(ids.flat().back(), 5);
  const auto column = batch.view<float>("labels");
  EXPECT_FALSE(column.is_contiguous());
  EXPECT_EQ(column(0), 1);
  EXPECT_EQ(column(1), 4);
  EXPECT_THROW(column.flat(), std::invalid_argument);
}

TEST(SdkBatch, NamesWhatIsThereWhenANameOrTypeIsWrong) {
  Input input;
  Batch batch(input.tensors.data(), input.tensors.size());
  EXPECT_EQ(sentence_of([&] { batch.view<float>("x"); }),
            "the batch has no tensor \"x\"; it has input_ids, labels");
  EXPECT_EQ(sentence_of([&] { batch.mutable_view<float>("input_ids"); }),
            "\"input_ids\" holds int64, not float32");
  EXPECT_EQ(sentence_of([&] { batch.remove("x"); }),
            "the batch has no tensor \"x\"; it has input_ids, labels");
  EXPECT_EQ(sentence_of([&] { batch.add<float>("y", {2, -1}); }), "\"y\" has a negative extent");
  EXPECT_EQ(sentence_of([&] { batch.add<float>("y", {1L << 40, 1L << 40}); }), "\"y\" is too large");
}

TEST(SdkBatch, MutableViewsAreCopiesThatBecomeTheOutput) {
  Input input;
  Batch batch(input.tensors.data(), input.tensors.size());
  const auto before = batch.view<std::int64_t>("input_ids");
  const auto ids = batch.mutable_view<std::int64_t>("input_ids");
  ids(0, 0) = 70;
  EXPECT_EQ(input.ids[0], 0);
  EXPECT_EQ(before(0, 0), 0);
  EXPECT_EQ(batch.view<std::int64_t>("input_ids")(0, 0), 70);
  EXPECT_EQ(batch.mutable_view<std::int64_t>("input_ids").data(), ids.data());

  Received received;
  batch.hand_over(received.host);
  EXPECT_EQ(received.kept, std::vector<std::string>{"labels"});
  ASSERT_TRUE(received.put.contains("input_ids"));
  EXPECT_EQ(received.put["input_ids"].first, ids.data());
}

TEST(SdkBatch, ChangesAnInputWhereItLiesIfItMayAndNobodyHasSeenIt) {
  for (const bool seen : {false, true}) {
    Input input;
    std::array<std::int64_t, 6> open = input.ids;  // the same bytes, elsewhere
    input.tensors[0].writable = open.data();
    Batch batch(input.tensors.data(), input.tensors.size());
    if (seen) {
      EXPECT_EQ(batch.view<std::int64_t>("input_ids")(0, 0), 0);
    }
    const auto ids = batch.mutable_view<std::int64_t>("input_ids");
    EXPECT_EQ(ids.data() == open.data(), !seen);
    ids(1, 2) = 50;
    EXPECT_EQ(batch.view<std::int64_t>("input_ids")(1, 2), 50);
    EXPECT_EQ(batch.mutable_view<std::int64_t>("input_ids").data(), ids.data());
    Received received;
    batch.hand_over(received.host);
    EXPECT_EQ(received.pieces.contains("input_ids"), !seen);
    EXPECT_EQ(received.put.contains("input_ids"), seen);
    EXPECT_EQ(input.ids[5], 5);
  }
}

TEST(SdkBatch, PiecesOfAnInputAreSaidAndNotCopied) {
  Input input;
  Batch batch(input.tensors.data(), input.tensors.size());
  const auto ids = batch.view<std::int64_t>("input_ids");
  batch.set("input_ids", ids.permuted({1, 0}));
  batch.set("last", ids.sliced(1, 2, 1));
  batch.remove("labels");
  EXPECT_EQ(batch.view<std::int64_t>("input_ids")(2, 1), 5);
  Received received;
  batch.hand_over(received.host);
  EXPECT_TRUE(received.put.empty());
  EXPECT_EQ(received.pieces.at("input_ids"), "input_ids+0 [3,2] strides [1,3]");
  EXPECT_EQ(received.pieces.at("last"), "input_ids+16 [2,1] strides [3,1]");
}

TEST(SdkBatch, CopiesWhatIsSetAndLiesInNoInput) {
  Input input;
  Batch batch(input.tensors.data(), input.tensors.size());
  const auto made = batch.add<float>("made", {2, 2});
  made(0, 1) = 7;
  batch.set("turned", made.permuted({1, 0}));
  made(0, 1) = 8;
  EXPECT_EQ(batch.view<float>("turned")(1, 0), 7);
  Received received;
  batch.hand_over(received.host);
  EXPECT_TRUE(received.pieces.empty());
  EXPECT_TRUE(received.put.contains("turned"));
  EXPECT_THROW(made.permuted({0}), std::out_of_range);
  EXPECT_THROW(made.permuted({0, 2}), std::out_of_range);
  EXPECT_THROW(made.sliced(0, 1, 2), std::out_of_range);
}

TEST(SdkBatch, MakesADenseCopyOfAPieceThatIsWrittenTo) {
  Input input;
  Batch batch(input.tensors.data(), input.tensors.size());
  batch.set("turned", batch.view<std::int64_t>("input_ids").permuted({1, 0}));
  batch.mutable_view<std::int64_t>("turned")(2, 1) = 50;
  EXPECT_EQ(input.ids[5], 5);
  EXPECT_EQ(batch.view<std::int64_t>("turned").flat()[3], 4);
  Received received;
  batch.hand_over(received.host);
  EXPECT_TRUE(received.put.contains("turned"));
  EXPECT_TRUE(received.pieces.empty());
}

TEST(SdkBatch, MakesADenseCopyOfAStridedInput) {
  Input input;
  Batch batch(input.tensors.data(), input.tensors.size());
  const auto column = batch.mutable_view<float>("labels").flat();
  ASSERT_EQ(column.size(), 2u);
  EXPECT_EQ(column[0], 1);
  EXPECT_EQ(column[1], 4);
}

TEST(SdkBatch, OutputsOutliveTheBatch) {
  Input input;
  Received received;
  {
    Batch batch(input.tensors.data(), input.tensors.size());
    batch.add<float>("weight", {2})(1) = 0.5f;
    batch.hand_over(received.host);
  }
  EXPECT_EQ(static_cast<const float*>(received.put["weight"].first)[0], 0.0f);
  EXPECT_EQ(static_cast<const float*>(received.put["weight"].first)[1], 0.5f);
}

TEST(SdkBatch, AddReplacesAndRemoveDropsWhileOldViewsStayValid) {
  Input input;
  Batch batch(input.tensors.data(), input.tensors.size());
  const auto old = batch.mutable_view<std::int64_t>("input_ids");
  batch.add<float>("input_ids", {1});
  batch.remove("labels");
  EXPECT_EQ(old(1, 1), 4);
  EXPECT_EQ(batch.dtype("input_ids"), bulkhead::DType::kFloat32);
  EXPECT_EQ(batch.names(), std::vector<std::string>{"input_ids"});
}

TEST(SdkBatch, KeepsAnEmptyTensorThatThePluginMade) {
  Input input;
  Batch batch(input.tensors.data(), 0);
  batch.add<float>("none", {0, 4});
  Received received;
  batch.hand_over(received.host);
  EXPECT_EQ(received.put["none"].second, (Shape{0, 4}));
}

TEST(SdkHalf, RoundTripsEveryValue) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    Half half;
    half.bits = static_cast<std::uint16_t>(bits);
    const float value = half;
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(Half(value)))) << bits;
    } else {
      EXPECT_EQ(Half(value).bits, bits);
    }
  }
}

TEST(SdkHalf, RoundsToNearestEven) {
  EXPECT_EQ(Half(1.0f + 0x1.0p-11f).bits, Half(1.0f).bits);
  EXPECT_EQ(static_cast<float>(Half(1.0f + 0x1.8p-11f)), 1.0f + 0x1.0p-10f);
  EXPECT_EQ(static_cast<float>(Half(65519.0f)), 65504.0f);
  EXPECT_TRUE(std::isinf(static_cast<float>(Half(65520.0f))));
  EXPECT_EQ(static_cast<float>(Half(0x1.0p-25f)), 0.0f);
  EXPECT_EQ(static_cast<float>(Half(-0x1.8p-25f)), -0x1.0p-24f);
  EXPECT_EQ(static_cast<float>(BFloat16(1.0f + 0x1.0p-8f)), 1.0f);
  EXPECT_EQ(static_cast<float>(BFloat16(1.0f + 0x1.8p-8f)), 1.0f + 0x1.0p-7f);
  EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(std::numeric_limits<float>::quiet_NaN()))));
}

}  // namespace
