#include "safetensors.h"

#include <cstring>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace bulkhead {
namespace {

std::string written(const std::vector<NamedTensor>& tensors, const TextMap& metadata = {}) {
  std::string bytes;
  const auto done = write_safetensors(tensors, metadata, [&](const void* data, std::size_t size) {
    bytes.append(static_cast<const char*>(data), size);
    return ok_status();
  });
  EXPECT_TRUE(done.ok()) << done.error().message;
  return bytes;
}

Result<SafeTensors> parsed(const std::string& bytes) {
  return parse_safetensors(Blob::of(bytes), "x.safetensors");
}

// A file with this header over `data_bytes` zeros.
std::string file_with(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), sizeof length);
  return bytes + header + std::string(data_bytes, '\0');
}

std::string why(const std::string& bytes) {
  const auto result = parsed(bytes);
  return result ? "accepted" : result.error().message;
}

std::string entry(const std::string& name, const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":"F32","shape":[2],"data_offsets":)" + offsets + "}";
}

constexpr at::ScalarType kAllTypes[] = {at::kBool, at::kByte, at::kChar,     at::kShort, at::kInt,
                                        at::kLong, at::kHalf, at::kBFloat16, at::kFloat, at::kDouble};

TEST(SafeTensors, BringsBackEveryTypeAndShape) {
  std::vector<NamedTensor> tensors;
  for (const at::ScalarType type : kAllTypes) {
    const std::string name = c10::toString(type);
    tensors.push_back({name + ".matrix", at::randint(0, 2, {3, 5}).to(type)});
    tensors.push_back({name + ".scalar", at::ones({}, type)});
    tensors.push_back({name + ".empty", at::ones({4, 0}, type)});
  }
  tensors.push_back({"strided", at::arange(12).reshape({3, 4}).t()});
  const auto read = parsed(written(tensors, {{"format", "pt"}}));
  ASSERT_TRUE(read.ok()) << read.error().message;
  EXPECT_EQ(read->metadata, (TextMap{{"format", "pt"}}));
  ASSERT_EQ(read->tensors.size(), tensors.size());
  for (const NamedTensor& tensor : tensors) {
    const at::Tensor* found = find_tensor(read->tensors, tensor.name);
    ASSERT_NE(found, nullptr) << tensor.name;
    EXPECT_EQ(found->scalar_type(), tensor.value.scalar_type());
    EXPECT_TRUE(at::equal(*found, tensor.value)) << tensor.name;
  }
}

TEST(SafeTensors, AlignsTheDataAndSharesIt) {
  const std::string bytes = written({{"a", at::ones({1}, at::kByte)}, {"b", at::ones({1}, at::kDouble)}});
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  EXPECT_EQ(header % 8, 0u);
  const Blob blob = Blob::of(bytes);
  const auto read = parse_safetensors(blob, "x");
  const auto* data = static_cast<const std::byte*>(find_tensor(read->tensors, "b")->const_data_ptr());
  EXPECT_EQ(data, blob.data + 8 + header);
}

TEST(SafeTensors, WritesTheReferencesBytes) {
  // What PyPI's safetensors 0.8 writes for {"w": float32 [[1, 2]], "n": int64 [3]}.
  const std::string header =
      R"({"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}})";
  const std::string bytes =
      written({{"w", at::tensor({1.0F, 2.0F}).reshape({1, 2})}, {"n", at::tensor({std::int64_t{3}})}});
  EXPECT_EQ(bytes.substr(8, header.size()), header);
  const std::int64_t number = 3;
  const float values[] = {1, 2};
  EXPECT_EQ(std::memcmp(bytes.data() + bytes.size() - 16, &number, 8), 0);
  EXPECT_EQ(std::memcmp(bytes.data() + bytes.size() - 8, values, 8), 0);
}

TEST(SafeTensors, AcceptsAFileWithoutTensors) { EXPECT_TRUE(parsed(written({})).ok()); }

TEST(SafeTensors, RefusesToWriteWhatItCouldNotRead) {
  const auto sink = [](const void*, std::size_t) { return ok_status(); };
  const at::Tensor one = at::ones({1});
  EXPECT_FALSE(write_safetensors({{"a", one}, {"a", one}}, {}, sink).ok());
  EXPECT_FALSE(write_safetensors({{"__metadata__", one}}, {}, sink).ok());
  EXPECT_FALSE(write_safetensors({{"c", at::ones({1}, at::kComplexFloat)}}, {}, sink).ok());
  EXPECT_FALSE(write_safetensors({{"\xff", one}}, {}, sink).ok());
}

TEST(SafeTensors, PassesOnTheSinksError) {
  const auto full = [](const void*, std::size_t) -> Status {
    return Error{ErrorCode::kFailed, "the disk is full"};
  };
  EXPECT_EQ(write_safetensors({{"a", at::ones({1})}}, {}, full).error().message, "the disk is full");
}

TEST(SafeTensors, RefusesEveryTruncation) {
  const std::string bytes = written({{"a", at::ones({3})}, {"b", at::ones({2}, at::kBool)}});
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(parsed(bytes.substr(0, length)).ok()) << length;
  }
  EXPECT_FALSE(parsed(bytes + "x").ok());
}

TEST(SafeTensors, SurvivesEveryFlippedBit) {
  const std::string good = written({{"a", at::ones({3})}, {"b", at::ones({2}, at::kBool)}}, {{"k", "v"}});
  int refused = 0;
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    const auto read = parsed(bytes);
    if (!read) ++refused;
    for (const NamedTensor& tensor : read ? read->tensors : std::vector<NamedTensor>{}) {
      EXPECT_LE(tensor.value.nbytes(), good.size());
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(SafeTensors, NamesFileAndTensorInWhatItRefuses) {
  const auto object = [](const std::string& inside) { return "{" + inside + "}"; };
  EXPECT_EQ(why("short"), "x.safetensors: is too short for a safetensors file");
  EXPECT_EQ(why(std::string(8, '\xff')), "x.safetensors: has a header of more than 100 MB");
  EXPECT_EQ(why(file_with("[]", 0)), "x.safetensors: has a header that is not a JSON object");
  EXPECT_EQ(why(file_with("{\"a\":", 0)), "x.safetensors: has a header that is not a JSON object");
  EXPECT_EQ(why(file_with(object(entry("a", "[0,8]") + "," + entry("b", "[4,12]")), 12)),
            "x.safetensors: tensor 'b' overlaps another one");
  EXPECT_EQ(why(file_with(object(entry("a", "[4,12]")), 12)),
            "x.safetensors: tensor 'a' has a gap before it");
  EXPECT_EQ(why(file_with(object(entry("a", "[0,8]")), 9)),
            "x.safetensors: has data that belongs to no tensor");
  EXPECT_EQ(why(file_with(object(entry("a", "[0,8]")), 4)),
            "x.safetensors: tensor 'a' ends past the end of the file");
  EXPECT_EQ(why(file_with(object(entry("a", "[0,4]")), 4)),
            "x.safetensors: tensor 'a' has data_offsets that do not fit its shape");
  EXPECT_EQ(why(file_with(object(entry("a", "[8,0]")), 8)),
            "x.safetensors: tensor 'a' has data_offsets that do not fit its shape");
  EXPECT_EQ(why(file_with(object(entry("a", "[-1,8]")), 8)),
            "x.safetensors: tensor 'a' has bad data_offsets");
  EXPECT_EQ(why(file_with(R"({"a":{"dtype":"F8","shape":[],"data_offsets":[0,1]}})", 1)),
            "x.safetensors: tensor 'a' has a dtype that bulkhead does not read: \"F8\"");
  EXPECT_EQ(
      why(file_with(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0)),
      "x.safetensors: tensor 'a' has data_offsets that do not fit its shape");
  EXPECT_EQ(why(file_with(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4)),
            "x.safetensors: tensor 'a' has a bad shape");
  EXPECT_EQ(why(file_with(R"({"__metadata__":{"k":1}})", 0)),
            "x.safetensors: has __metadata__ that is not text: k");
  EXPECT_EQ(why(file_with(R"({"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})", 0) + "\x02"),
            "x.safetensors: tensor 'a' is of type BOOL but holds something else than 0 and 1");
}

}  // namespace
}  // namespace bulkhead
