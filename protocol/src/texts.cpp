#include "protocol/texts.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace bulkhead {
namespace {

std::int64_t value_at(const Tensor& tensor, std::size_t index) {
  std::int64_t value = 0;
  std::memcpy(&value, tensor.bytes.data + index * sizeof value, sizeof value);
  return value;
}

Error unfit(const std::string& name, const std::string& what) {
  return {ErrorCode::kMismatch, "\"" + name + "\" " + what};
}

// A list of `dtype`, or why not.
Result<const Tensor*> list_of(const Batch& batch, const std::string& name, DType dtype) {
  const Tensor* tensor = find_tensor(batch, name);
  if (tensor == nullptr) return unfit(name, "is not in the batch; a list of texts needs it");
  if (tensor->dtype != dtype || tensor->shape.size() != 1) {
    return unfit(name, "must be " + std::string(name_of(dtype)) + " with one dimension, not " +
                           describe({*tensor}).substr(tensor->name.size() + 1));
  }
  return tensor;
}

}  // namespace

std::string ends_name(std::string_view name) { return std::string(name) + ".ends"; }

const Tensor* find_tensor(const Batch& batch, std::string_view name) {
  const auto found =
      std::find_if(batch.begin(), batch.end(), [&](const Tensor& tensor) { return tensor.name == name; });
  return found == batch.end() ? nullptr : &*found;
}

Batch pack_texts(std::string_view name, std::span<const std::string> texts) {
  std::string all;
  std::string ends(texts.size() * sizeof(std::int64_t), '\0');
  for (std::size_t i = 0; i < texts.size(); ++i) {
    all += texts[i];
    const auto end = static_cast<std::int64_t>(all.size());
    std::memcpy(ends.data() + i * sizeof end, &end, sizeof end);
  }
  const auto bytes = static_cast<std::int64_t>(all.size());
  return {
      {std::string(name), DType::kUInt8, {bytes}, Blob::of(std::move(all))},
      {ends_name(name), DType::kInt64, {static_cast<std::int64_t>(texts.size())}, Blob::of(std::move(ends))}};
}

Result<std::vector<std::string>> unpack_texts(const Batch& batch, std::string_view name) {
  const Result<const Tensor*> bytes = list_of(batch, std::string(name), DType::kUInt8);
  if (!bytes) return bytes.error();
  const Result<const Tensor*> ends = list_of(batch, ends_name(name), DType::kInt64);
  if (!ends) return ends.error();
  const std::string_view all = (*bytes)->bytes.text();
  const auto total = static_cast<std::int64_t>(all.size());
  const auto count = static_cast<std::size_t>((*ends)->shape[0]);
  std::vector<std::string> texts;
  texts.reserve(count);
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::int64_t end = value_at(**ends, i);
    if (end < begin || end > total) {
      return unfit((*ends)->name, "must ascend from 0 to the " + std::to_string(total) + " bytes of \"" +
                                      std::string(name) + "\", but holds " + std::to_string(end) +
                                      " behind " + std::to_string(begin));
    }
    texts.emplace_back(all.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
    begin = end;
  }
  if (begin != total) {
    return unfit((*ends)->name, "ends at " + std::to_string(begin) + ", but \"" + std::string(name) +
                                    "\" has " + std::to_string(total) + " bytes");
  }
  return texts;
}

}  // namespace bulkhead
