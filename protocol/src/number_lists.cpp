#include "protocol/number_lists.h"

#include <cstring>
#include <string>
#include <utility>

#include "protocol/texts.h"

namespace bulkhead {

Tensor pack_numbers(std::string_view name, std::span<const std::int64_t> values) {
  std::string bytes(values.size_bytes(), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return {std::string(name),
          DType::kInt64,
          {static_cast<std::int64_t>(values.size())},
          Blob::of(std::move(bytes))};
}

Result<std::vector<std::int64_t>> unpack_numbers(const Batch& batch, std::string_view name) {
  const Tensor* tensor = find_tensor(batch, name);
  const auto unfit = [&](const std::string& what) {
    return Error{ErrorCode::kMismatch, "\"" + std::string(name) + "\" " + what};
  };
  if (tensor == nullptr) return unfit("is not in the batch");
  if (tensor->dtype != DType::kInt64 || tensor->shape.size() != 1) {
    return unfit("must be int64 with one dimension, not " +
                 describe({*tensor}).substr(tensor->name.size() + 1));
  }
  std::vector<std::int64_t> values(tensor->bytes.size / sizeof(std::int64_t));
  if (!values.empty()) std::memcpy(values.data(), tensor->bytes.data, values.size() * sizeof values[0]);
  return values;
}

Batch NumberLists::pack(std::string_view name) const {
  return {pack_numbers(name, values_), pack_numbers(ends_name(name), ends_)};
}

Result<NumberLists> NumberLists::unpack(const Batch& batch, std::string_view name) {
  Result<std::vector<std::int64_t>> values = unpack_numbers(batch, name);
  if (!values) return values.error();
  Result<std::vector<std::int64_t>> ends = unpack_numbers(batch, ends_name(name));
  if (!ends) return ends.error();
  const auto total = static_cast<std::int64_t>(values->size());
  const auto unfit = [&](const std::string& what) {
    return Error{ErrorCode::kMismatch, "\"" + ends_name(name) + "\" " + what};
  };
  std::int64_t begin = 0;
  for (const std::int64_t end : *ends) {
    if (end < begin || end > total) {
      return unfit("must ascend from 0 to the " + std::to_string(total) + " values of \"" +
                   std::string(name) + "\", but holds " + std::to_string(end) + " behind " +
                   std::to_string(begin));
    }
    begin = end;
  }
  if (begin != total) {
    return unfit("ends at " + std::to_string(begin) + ", but \"" + std::string(name) + "\" has " +
                 std::to_string(total) + " values");
  }
  NumberLists lists;
  lists.values_ = std::move(*values);
  lists.ends_ = std::move(*ends);
  return lists;
}

}  // namespace bulkhead
