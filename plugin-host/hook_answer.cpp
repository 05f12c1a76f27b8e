#include "hook_answer.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "call_rules.h"
#include "clean_text.h"
#include "protocol/codec.h"

namespace bulkhead {
namespace {

constexpr std::size_t kMaxMetrics = 1024;   // in one note
constexpr std::int64_t kNotLearned = -100;  // as a label
constexpr std::size_t kMaxMessageBytes = (kMaxFrames - 1) * kChunkBytes;

HookAnswer& self_of(void* self) { return *static_cast<HookAnswer*>(self); }

// Thrown by checked() and caught in put().
struct Unfit {
  std::string why;
};

}  // namespace

HookAnswer::HookAnswer(const About& about, const CallLine& line) : about_(about), line_(line), host_{} {
  reply_.generation = about.generation;
  reply_.seq = about.seq;
  host_.self = this;
  fill_results();
  fill_questions();
}

// What the call leads to, taken when it is over.
void HookAnswer::fill_results() {
  host_.fail = [](void* self, abi::Text type, abi::Text message, std::int32_t fatal) {
    self_of(self).fail(clean_text(abi::view(type), kMaxPluginName), clean_text(abi::view(message)),
                       fatal != 0);
  };
  host_.refuse = [](void* self, abi::Text key, abi::Text message, const abi::Text* candidates,
                    std::size_t count) {
    Refusal refusal{clean_text(abi::view(key), kMaxPluginName), clean_text(abi::view(message)), {}};
    for (std::size_t i = 0; i < count; ++i) refusal.candidates.emplace_back(abi::view(candidates[i]));
    self_of(self).refusal_ = std::move(refusal);
  };
  host_.control = [](void* self, std::uint32_t flags, abi::Text reason) {
    Control& control = self_of(self).reply_.control;
    control.stop = (flags & abi::kStop) != 0;
    control.stop_epoch = (flags & abi::kStopEpoch) != 0;
    control.save = (flags & abi::kSave) != 0;
    control.validate = (flags & abi::kValidate) != 0;
    control.log = (flags & abi::kLog) != 0;
    control.reason = clean_text(abi::view(reason));
  };
  host_.keep = [](void* self, abi::Text name) { self_of(self).reply_.kept.emplace_back(abi::view(name)); };
  host_.put = [](void* self, const abi::Tensor* tensor, void* owner, void (*release)(void*)) {
    self_of(self).put(*tensor, std::shared_ptr<void>(owner, release));
  };
  host_.piece = [](void* self, const abi::Tensor* tensor, abi::Text of, std::int64_t offset) {
    self_of(self).put_piece(*tensor, abi::view(of), offset);
  };
  host_.state = [](void* self, abi::Text bytes) {
    HookAnswer& answer = self_of(self);
    if (bytes.size > kMaxMessageBytes)
      return answer.fail("std::length_error", "the state is larger than 64 GiB");
    answer.reply_.state = Blob::of(std::string(abi::view(bytes)));
    answer.reply_.has_state = true;
  };
  host_.caption = [](void* self, abi::Text text) { self_of(self).take_caption(abi::view(text)); };
  host_.configured = [](void* self, const abi::Value* changes) { self_of(self).take_changes(*changes); };
  host_.allocate = [](void* self, std::size_t bytes) { return self_of(self).allocate(bytes); };
  host_.rows = [](void* self, const abi::Value* columns) { self_of(self).take_columns(*columns); };
  host_.verdict = [](void* self, std::int32_t keep) { self_of(self).verdict_ = keep != 0; };
  host_.encoded = [](void* self, const std::int64_t* input_ids, const std::int64_t* labels,
                     std::size_t count) {
    self_of(self).take_tokens({input_ids, count}, {labels, count});
  };
}

// What is answered or sent in the middle of the call.
void HookAnswer::fill_questions() {
  host_.note = [](void* self, abi::Text text, const abi::Metric* metrics, std::size_t count) {
    HookAnswer& answer = self_of(self);
    answer.line_.send(Note{answer.about_.generation, answer.about_.seq, clean_text(abi::view(text)),
                           answer.metrics_of(metrics, count)});
  };
  host_.progress = [](void* self, const abi::Metric* detail, std::size_t count) {
    HookAnswer& answer = self_of(self);
    answer.line_.send(
        Progress{answer.about_.generation, answer.about_.seq, Value(answer.metrics_of(detail, count))});
  };
  host_.set = [](void* self, abi::Text name, std::int32_t has_value, double value) {
    HookAnswer& answer = self_of(self);
    return answer.keep(answer.set(abi::view(name), has_value != 0 ? std::optional(value) : std::nullopt));
  };
  host_.objection = [](void* self, abi::Text what) {
    HookAnswer& answer = self_of(self);
    const About& about = answer.about_;
    return answer.keep(objection_to(abi::view(what), about.hook, about.scope, about.steers));
  };
  host_.ask = [](void* self, abi::Text what, abi::Text bytes) {
    return self_of(self).ask(abi::view(what), abi::view(bytes));
  };
}

Reply HookAnswer::take() {
  if (reply_.failure) {
    Reply only_failure;
    only_failure.generation = reply_.generation;
    only_failure.seq = reply_.seq;
    only_failure.failure = std::move(reply_.failure);
    only_failure.fatal = reply_.fatal;
    reply_ = std::move(only_failure);
  }
  return std::move(reply_);
}

void HookAnswer::fail(std::string type, std::string message, bool fatal) {
  if (reply_.failure) return;
  reply_.failure = Failure{std::move(type), std::move(message), {}};
  reply_.fatal = fatal;
}

void HookAnswer::put(const abi::Tensor& tensor, std::shared_ptr<void> owner) {
  try {
    const std::string_view name = abi::view(tensor.name);
    std::erase_if(reply_.batch, [&](const Tensor& before) { return before.name == name; });
    reply_.batch.push_back(checked(tensor, std::move(owner)));
  } catch (const Unfit& unfit) {
    fail("std::length_error", unfit.why);
  }
}

void HookAnswer::put_piece(const abi::Tensor& tensor, std::string_view of, std::int64_t offset) {
  try {
    Tensor fit = checked(tensor, nullptr);
    std::erase_if(reply_.pieces, [&](const Piece& before) { return before.name == fit.name; });
    std::vector<std::int64_t> strides(tensor.strides, tensor.strides + tensor.dims);
    reply_.pieces.push_back(
        {std::move(fit.name), std::string(of), offset, fit.dtype, std::move(fit.shape), std::move(strides)});
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
  if (reply_.batch.size() + reply_.pieces.size() + reply_.kept.size() >= kMaxTensors) {
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
  for (const Slot& slot : slots_) {
    if (slot.data == tensor.data && slot.size >= checked.bytes.size) {
      checked.bytes.owner = slot.owner;
      checked.bytes.segment = slot.segment;
    }
  }
  return checked;
}

std::map<std::string, double> HookAnswer::metrics_of(const abi::Metric* metrics, std::size_t count) {
  std::map<std::string, double> values;
  for (std::size_t i = 0; i < std::min(count, kMaxMetrics); ++i) {
    values.emplace(clean_text(abi::view(metrics[i].name), kMaxPluginName), metrics[i].value);
  }
  return values;
}

void HookAnswer::take_caption(std::string_view text) {
  if (text.size() > kMaxPluginText) {
    return fail("std::length_error", std::string(about_.hook) + " gave a caption of " +
                                         std::to_string(text.size()) + " bytes; at most " +
                                         std::to_string(kMaxPluginText) + " are carried");
  }
  if (clean_text(text) != text) {
    return fail("std::invalid_argument", std::string(about_.hook) + " gave a caption that is not UTF-8");
  }
  caption_ = text;
}

void HookAnswer::take_changes(const abi::Value& changes) {
  Result<Value> value = value_of(changes);
  if (!value) return fail("std::length_error", "the changes cannot be carried: " + value.error().message);
  changes_ = std::move(*value);
}

void HookAnswer::take_columns(const abi::Value& columns) {
  Result<Value> value = row_value_of(columns);
  if (!value) return fail("std::length_error", "the rows cannot be carried: " + value.error().message);
  columns_ = std::move(*value);
}

void HookAnswer::take_tokens(std::span<const std::int64_t> input_ids, std::span<const std::int64_t> labels) {
  const auto fits = [](std::int64_t id) { return id >= 0 && id <= INT32_MAX; };
  const auto wrong = [&](const char* what, std::int64_t id) {
    fail("std::out_of_range", "encode gave " + std::to_string(id) + " among its " + what +
                                  "; ids are 0 or more" +
                                  (what == std::string_view("labels") ? ", -100 is not learned" : ""));
  };
  for (const std::int64_t id : input_ids) {
    if (!fits(id)) return wrong("input_ids", id);
  }
  for (const std::int64_t label : labels) {
    if (!fits(label) && label != kNotLearned) return wrong("labels", label);
  }
  tokens_ = Tokens{{input_ids.begin(), input_ids.end()}, {labels.begin(), labels.end()}};
}

std::string HookAnswer::set(std::string_view name, std::optional<double> value) {
  std::string objection = setting_objection(name, value);
  if (!objection.empty()) return objection;
  std::vector<Setting>& settings = reply_.control.settings;
  std::erase_if(settings, [&](const Setting& before) { return before.name == name; });
  settings.push_back({std::string(name), value});
  return {};
}

abi::Memory HookAnswer::allocate(std::size_t bytes) {
  std::optional<Slot> slot = line_.allocate ? line_.allocate(bytes) : std::nullopt;
  if (!slot) return {};
  slots_.push_back(*slot);
  return {slot->data, new std::shared_ptr<void>(std::move(slot->owner)),
          [](void* owner) { delete static_cast<std::shared_ptr<void>*>(owner); }};
}

abi::Text HookAnswer::keep(std::string text) {
  if (text.empty()) return {};
  return abi::text(texts_.emplace_back(std::move(text)));
}

abi::Answer HookAnswer::ask(std::string_view what, std::string_view bytes) {
  using Kind = abi::Answer::Kind;
  abi::Answer told{};
  const std::string objection = objection_to(what, about_.hook, about_.scope, about_.steers);
  if (!objection.empty() || !line_.ask) {
    told.kind = Kind::kFailed;
    told.message = keep(objection.empty() ? "there is no rank to ask here" : objection);
    return told;
  }
  Ask question{about_.generation, about_.seq, questions_++, std::string(what), {}};
  if (what == "all_gather") {
    const auto size = static_cast<std::int64_t>(bytes.size());
    question.batch = {{"value", DType::kUInt8, {size}, Blob::of(std::string(bytes))}};
  }
  std::optional<Answer> answer = line_.ask(question);
  if (!answer) {
    told.kind = Kind::kAborted;
    return told;
  }
  const Kept& kept = answers_.emplace_back(std::move(*answer));
  if (const auto& failure = kept.answer.failure) {
    told.kind = Kind::kFailed;
    told.type = abi::text(failure->type);
    told.message = abi::text(failure->message);
    return told;
  }
  told.kind = Kind::kAnswered;
  told.tensor_count = kept.tensors.list().size();
  told.tensors = kept.tensors.list().data();
  return told;
}

}  // namespace bulkhead
