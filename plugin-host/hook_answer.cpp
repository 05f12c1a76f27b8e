#include "hook_answer.h"

#include <utility>

#include "clean_text.h"
#include "protocol/codec.h"

namespace bulkhead {
namespace {

constexpr std::size_t kMaxMetrics = 1024;  // in one note
constexpr std::size_t kMaxMessageBytes = (kMaxFrames - 1) * kChunkBytes;

HookAnswer& self_of(void* self) { return *static_cast<HookAnswer*>(self); }

// Thrown by checked() and caught in put().
struct Unfit {
  std::string why;
};

}  // namespace

HookAnswer::HookAnswer(Generation generation, Seq seq, const SendMessage& send) : send_(send), host_{} {
  reply_.generation = generation;
  reply_.seq = seq;
  host_.self = this;
  host_.fail = [](void* self, abi::Text type, abi::Text message) {
    self_of(self).fail(clean_text(abi::view(type), kMaxPluginName), clean_text(abi::view(message)));
  };
  host_.refuse = [](void* self, abi::Text key, abi::Text message, const abi::Text* candidates,
                    std::size_t count) {
    Refusal refusal{clean_text(abi::view(key), kMaxPluginName), clean_text(abi::view(message)), {}};
    for (std::size_t i = 0; i < count; ++i) refusal.candidates.emplace_back(abi::view(candidates[i]));
    self_of(self).refusal_ = std::move(refusal);
  };
  host_.control = [](void* self, std::uint32_t flags, abi::Text reason) {
    self_of(self).reply_.control = {(flags & abi::kStop) != 0, (flags & abi::kStopEpoch) != 0,
                                    (flags & abi::kSave) != 0, (flags & abi::kValidate) != 0,
                                    (flags & abi::kLog) != 0,  clean_text(abi::view(reason))};
  };
  host_.keep = [](void* self, abi::Text name) { self_of(self).reply_.kept.emplace_back(abi::view(name)); };
  host_.put = [](void* self, const abi::Tensor* tensor, void* owner, void (*release)(void*)) {
    self_of(self).put(*tensor, std::shared_ptr<void>(owner, release));
  };
  host_.state = [](void* self, abi::Text bytes) {
    HookAnswer& answer = self_of(self);
    if (bytes.size > kMaxMessageBytes)
      return answer.fail("std::length_error", "the state is larger than 64 GiB");
    answer.reply_.state = Blob::of(std::string(abi::view(bytes)));
    answer.reply_.has_state = true;
  };
  host_.note = [](void* self, abi::Text text, const abi::Metric* metrics, std::size_t count) {
    HookAnswer& answer = self_of(self);
    answer.send_(Note{answer.reply_.generation, answer.reply_.seq, clean_text(abi::view(text)),
                      answer.metrics_of(metrics, count)});
  };
  host_.progress = [](void* self, const abi::Metric* detail, std::size_t count) {
    HookAnswer& answer = self_of(self);
    answer.send_(
        Progress{answer.reply_.generation, answer.reply_.seq, Value(answer.metrics_of(detail, count))});
  };
}

Reply HookAnswer::take() {
  if (reply_.failure) {
    Reply only_failure;
    only_failure.generation = reply_.generation;
    only_failure.seq = reply_.seq;
    only_failure.failure = std::move(reply_.failure);
    reply_ = std::move(only_failure);
  }
  return std::move(reply_);
}

void HookAnswer::fail(std::string type, std::string message) {
  if (!reply_.failure) reply_.failure = Failure{std::move(type), std::move(message), {}};
}

void HookAnswer::put(const abi::Tensor& tensor, std::shared_ptr<void> owner) {
  try {
    reply_.batch.push_back(checked(tensor, std::move(owner)));
  } catch (const Unfit& unfit) {
    fail("std::length_error", unfit.why);
  }
}

Tensor HookAnswer::checked(const abi::Tensor& tensor, std::shared_ptr<void> owner) {
  Tensor checked;
  checked.name = abi::view(tensor.name);
  if (checked.name.size() > kMaxPluginName || checked.name != clean_text(checked.name)) {
    throw Unfit{"a tensor's name is UTF-8 of at most " + std::to_string(kMaxPluginName) + " bytes"};
  }
  const std::string quoted = "\"" + checked.name + "\"";
  if (reply_.batch.size() + reply_.kept.size() >= kMaxTensors) {
    throw Unfit{quoted + " is more than the " + std::to_string(kMaxTensors) +
                " tensors that a batch can have"};
  }
  if (tensor.dtype < abi::DType::kBool || tensor.dtype > abi::DType::kFloat64) {
    throw Unfit{quoted + " has an unknown element type"};
  }
  if (tensor.dims < 0 || static_cast<std::size_t>(tensor.dims) > kMaxDims) {
    throw Unfit{quoted + " has " + std::to_string(tensor.dims) + " dimensions; at most " +
                std::to_string(kMaxDims) + " are carried"};
  }
  checked.dtype = static_cast<DType>(tensor.dtype);
  checked.shape.assign(tensor.shape, tensor.shape + tensor.dims);
  std::int64_t size = size_bytes(checked.dtype);
  for (const std::int64_t extent : checked.shape) {
    if (extent < 0 || __builtin_mul_overflow(size, extent, &size))
      throw Unfit{quoted + " has an impossible shape"};
  }
  std::size_t total = static_cast<std::size_t>(size);
  for (const Tensor& other : reply_.batch) total += other.bytes.size + kChunkBytes;  // a last chunk each
  if (total > kMaxMessageBytes) throw Unfit{quoted + " makes the batch larger than 64 GiB"};
  checked.bytes = {std::move(owner), static_cast<const std::byte*>(tensor.data),
                   static_cast<std::size_t>(size)};
  return checked;
}

std::map<std::string, double> HookAnswer::metrics_of(const abi::Metric* metrics, std::size_t count) {
  std::map<std::string, double> values;
  for (std::size_t i = 0; i < std::min(count, kMaxMetrics); ++i) {
    values.emplace(clean_text(abi::view(metrics[i].name), kMaxPluginName), metrics[i].value);
  }
  return values;
}

}  // namespace bulkhead
