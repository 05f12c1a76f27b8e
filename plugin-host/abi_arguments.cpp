#include "abi_arguments.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>

#include "clean_text.h"
#include "protocol/arena.h"
#include "protocol/codec.h"

namespace bulkhead {
namespace {

using abi::text;

static_assert(static_cast<int>(abi::DType::kBool) == static_cast<int>(DType::kBool) &&
              static_cast<int>(abi::DType::kInt64) == static_cast<int>(DType::kInt64) &&
              static_cast<int>(abi::DType::kBFloat16) == static_cast<int>(DType::kBFloat16) &&
              static_cast<int>(abi::DType::kFloat64) == static_cast<int>(DType::kFloat64));

// Thrown and caught in this file only.
struct NotCarried {
  const char* why;
};

// What a value may hold.
struct Limits {
  std::size_t text_bytes = kMaxTextBytes;
  std::size_t items = kMaxItems;
  bool finite = false;  // numbers must be
};

// The same bytes where this process may write to them.
std::byte* writable_address(const Blob& bytes) {
  if (bytes.segment == nullptr) return nullptr;
  const Result<std::byte*> begin = bytes.segment->writable();
  return begin ? *begin + (bytes.data - bytes.segment->data()) : nullptr;
}

std::string carried_text(abi::Text text, const Limits& limits) {
  if (text.size > limits.text_bytes) throw NotCarried{"a text is longer than 1 MiB"};
  return clean_text(abi::view(text), limits.text_bytes);
}

Value carried(const abi::Value& value, std::size_t depth, const Limits& limits) {
  using Kind = abi::Value::Kind;
  if (depth == 0) throw NotCarried{"lists and maps are nested too deeply"};
  if (value.kind == Kind::kBool) return value.integer != 0;
  if (value.kind == Kind::kInt) return value.integer;
  if (value.kind == Kind::kFloat) {
    if (limits.finite && !std::isfinite(value.real)) throw NotCarried{"JSON has no NaN and no infinity"};
    return value.real;
  }
  if (value.kind == Kind::kText) return carried_text(value.text, limits);
  if (value.kind != Kind::kList && value.kind != Kind::kMap) return nullptr;
  if (value.count > limits.items) throw NotCarried{"a list or map has more than 65,536 items"};
  Value all = value.kind == Kind::kMap ? Value::object() : Value::array();
  for (std::size_t i = 0; i < value.count; ++i) {
    Value item = carried(value.items[i], depth - 1, limits);
    if (value.kind == Kind::kMap) {
      all[carried_text(value.keys[i], limits)] = std::move(item);
    } else {
      all.push_back(std::move(item));
    }
  }
  return all;
}

Result<Value> value_within(const abi::Value& value, const Limits& limits) {
  constexpr std::size_t kDeepest = kMaxDepth - 4;  // the envelope lies around it
  try {
    return carried(value, kDeepest, limits);
  } catch (const NotCarried& not_carried) {
    return Error{ErrorCode::kMalformed, not_carried.why};
  }
}

}  // namespace

Result<Value> value_of(const abi::Value& value) { return value_within(value, {}); }

Result<Value> row_value_of(const abi::Value& value) {
  return value_within(value, {SIZE_MAX, SIZE_MAX, true});
}

AbiTensors::AbiTensors(const Batch& batch, const std::vector<std::string>& writable, bool on_device) {
  strides_.reserve(batch.size());
  for (const Tensor& tensor : batch) {
    strides_.push_back(tensor.strides.empty() ? dense_strides(tensor.shape) : tensor.strides);
    const bool may = std::ranges::count(writable, tensor.name) > 0;
    tensors_.push_back({text(tensor.name), static_cast<abi::DType>(tensor.dtype),
                        static_cast<std::int32_t>(tensor.shape.size()), tensor.shape.data(),
                        strides_.back().data(), tensor.bytes.data,
                        !may        ? nullptr
                        : on_device ? const_cast<std::byte*>(tensor.bytes.data)
                                    : writable_address(tensor.bytes)});
  }
}

abi::Value AbiValue::convert(const Value& value) {
  using Kind = abi::Value::Kind;
  abi::Value out{};
  switch (value.type()) {
    case Value::value_t::boolean:
      out.kind = Kind::kBool;
      out.integer = value.get<bool>() ? 1 : 0;
      return out;
    case Value::value_t::number_integer:
    case Value::value_t::number_unsigned:
      out.kind = Kind::kInt;
      out.integer = value.get<std::int64_t>();
      return out;
    case Value::value_t::number_float:
      out.kind = Kind::kFloat;
      out.real = value.get<double>();
      return out;
    case Value::value_t::string:
      out.kind = Kind::kText;
      out.text = text(value.get_ref<const std::string&>());
      return out;
    case Value::value_t::array:
    case Value::value_t::object:
      break;
    default:
      out.kind = Kind::kNull;
      return out;
  }
  // A deque: references stay good while children add lists of their own.
  std::vector<abi::Value>& items = lists_.emplace_back();
  std::vector<abi::Text>& keys = keys_.emplace_back();
  for (const auto& item : value.items()) {
    items.push_back(convert(item.value()));
    if (value.is_object()) keys.push_back(text(item.key()));
  }
  out.kind = value.is_object() ? Kind::kMap : Kind::kList;
  out.count = items.size();
  out.items = items.data();
  out.keys = keys.data();
  return out;
}

AbiFacts::AbiFacts(const Facts& facts, Generation generation) : facts_{} {
  for (const auto& [from, to] : facts.map_loc) {
    from_.push_back(text(from));
    to_.push_back(text(to));
  }
  facts_.rank = facts.rank;
  facts_.local_rank = facts.local_rank;
  facts_.node_rank = facts.node_rank;
  facts_.world_size = facts.world_size;
  facts_.local_world_size = facts.local_world_size;
  facts_.generation = generation.value;
  facts_.run_seed = facts.run_seed;
  facts_.is_distributed = facts.is_distributed;
  facts_.is_main = facts.is_main;
  facts_.device = text(facts.device);
  facts_.scope = text(facts.scope);
  facts_.project = text(facts.project);
  facts_.run_dir = text(facts.run_dir);
  facts_.plugin = text(facts.plugin);
  facts_.map_loc_count = from_.size();
  facts_.map_loc_from = from_.data();
  facts_.map_loc_to = to_.data();
}

AbiCall::AbiCall(const Call& call, const Philox::Key& key, int device)
    : tensors_(call.batch, call.writable, device >= 0), call_{} {
  const CallContext& context = call.context;
  for (const auto& [name, value] : context.metrics) metrics_.push_back({text(name), value});
  call_.hook = text(call.hook);
  call_.epoch = context.epoch;
  call_.global_step = context.global_step;
  call_.step_in_epoch = context.step_in_epoch;
  call_.epoch_length = context.epoch_length;
  call_.max_steps = context.max_steps;
  call_.max_epochs = context.max_epochs;
  call_.micro_batch = context.micro_batch;
  call_.lr = context.lr;
  call_.grad_norm = context.grad_norm;
  call_.has_best_metric = context.best_metric.has_value();
  call_.best_metric = context.best_metric.value_or(0);
  call_.replaying = context.replaying;
  call_.call_id = text(context.call_id);
  call_.metric_count = metrics_.size();
  call_.metrics = metrics_.data();
  call_.rng_key[0] = key[0];
  call_.rng_key[1] = key[1];
  call_.tensor_count = tensors_.list().size();
  call_.tensors = tensors_.list().data();
  call_.device = device;
  call_.state = text(call.state.text());
  call_.exception = text(context.exception);
  call_.sample = -1;
}

}  // namespace bulkhead
