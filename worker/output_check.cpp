#include "output_check.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "protocol/run_config.h"

namespace bulkhead {
namespace {

constexpr std::size_t kMostForms = 16;  // of a transform's inputs that are remembered

Batch schema_of(const Batch& batch) {
  Batch schema = batch;
  for (Tensor& tensor : schema) tensor.bytes = {};
  return schema;
}

constexpr std::size_t kMaxPluginText = std::size_t{64} << 10;

const Tensor* find(const Batch& batch, const std::string& name) {
  const auto found =
      std::find_if(batch.begin(), batch.end(), [&](const Tensor& tensor) { return tensor.name == name; });
  return found == batch.end() ? nullptr : &*found;
}

// True when some element has all exponent bits set: a NaN or an infinity.
template <class Word>
bool has_nonfinite(const Blob& bytes, Word exponent) {
  for (std::size_t at = 0; at + sizeof(Word) <= bytes.size; at += sizeof(Word)) {
    Word word;
    std::memcpy(&word, bytes.data + at, sizeof word);
    if ((word & exponent) == exponent) return true;
  }
  return false;
}

bool is_finite(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::kFloat16:
      return !has_nonfinite<std::uint16_t>(tensor.bytes, 0x7C00);
    case DType::kBFloat16:
      return !has_nonfinite<std::uint16_t>(tensor.bytes, 0x7F80);
    case DType::kFloat32:
      return !has_nonfinite<std::uint32_t>(tensor.bytes, 0x7F800000);
    case DType::kFloat64:
      return !has_nonfinite<std::uint64_t>(tensor.bytes, 0x7FF0000000000000);
    default:
      return true;
  }
}

}  // namespace

Status add_pieces(const Batch& input, const std::vector<Piece>& pieces, Batch& changed) {
  for (const Piece& piece : pieces) {
    if (find(changed, piece.name) != nullptr)
      return Error{ErrorCode::kMalformed, "the output holds \"" + piece.name + "\" twice"};
    const Tensor* whole = find(input, piece.of);
    if (whole == nullptr) {
      return Error{ErrorCode::kMalformed, "\"" + piece.name + "\" is a piece of \"" + piece.of +
                                              "\", which the input does not have"};
    }
    Result<Tensor> tensor = cut(*whole, piece);
    if (!tensor) return tensor.error();
    changed.push_back(std::move(*tensor));
  }
  return ok_status();
}

Result<Batch> assemble_output(const Batch& input, const Batch& changed,
                              const std::vector<std::string>& kept) {
  for (const std::string& name : kept) {
    if (find(input, name) == nullptr)
      return Error{ErrorCode::kMalformed, "the output keeps \"" + name + "\", which the input does not have"};
    if (find(changed, name) != nullptr)
      return Error{ErrorCode::kMalformed, "the output holds \"" + name + "\" twice"};
  }
  Batch output;
  for (const Tensor& tensor : input) {
    if (const Tensor* replaced = find(changed, tensor.name))
      output.push_back(*replaced);
    else if (std::find(kept.begin(), kept.end(), tensor.name) != kept.end())
      output.push_back(tensor);
  }
  for (const Tensor& tensor : changed) {
    if (find(input, tensor.name) == nullptr) output.push_back(tensor);
  }
  return output;
}

std::string check_schema(const Batch& wanted, const Batch& output, bool with_shapes) {
  const auto differs = [&] {
    return "the batch came back as {" + describe(output) + "}, not as {" + describe(wanted) + "}";
  };
  if (wanted.size() != output.size()) return differs();
  for (const Tensor& tensor : wanted) {
    const Tensor* got = find(output, tensor.name);
    if (got == nullptr || got->dtype != tensor.dtype) return differs();
    if (with_shapes && got->shape != tensor.shape) return differs();
  }
  return {};
}

std::string check_samples(const Batch& input, const Batch& output) {
  if (std::string differs = check_schema(input, output, false); !differs.empty()) return differs;
  for (const Tensor& tensor : input) {
    const Tensor& got = *find(output, tensor.name);
    const bool is_caption = tensor.name == "captions";
    if (!is_caption && got.shape != tensor.shape) {
      return "\"" + tensor.name + "\" came back as {" + describe({got}) + "}, not as {" + describe({tensor}) +
             "}";
    }
    const bool is_free = is_caption || tensor.name == "captions.ends" || tensor.name == "images";
    if (!is_free && got.bytes.text() != tensor.bytes.text()) {
      return "\"" + tensor.name + "\" was changed: it says which sample is which";
    }
  }
  const Tensor* captions = find(output, "captions");
  const Tensor* ends = find(output, "captions.ends");
  if (captions == nullptr || ends == nullptr) return {};
  std::int64_t begin = 0;
  for (std::size_t at = 0; at + sizeof begin <= ends->bytes.size; at += sizeof begin) {
    std::int64_t end = 0;
    std::memcpy(&end, ends->bytes.data + at, sizeof end);
    if (end < begin || end > static_cast<std::int64_t>(captions->bytes.size)) {
      return "\"captions.ends\" does not divide \"captions\" into texts";
    }
    if (end - begin > static_cast<std::int64_t>(kMaxPluginText)) return "a caption is longer than 64 KiB";
    begin = end;
  }
  if (begin != static_cast<std::int64_t>(captions->bytes.size))
    return "\"captions\" holds more than its texts";
  return {};
}

std::string check_made(const Batch& output) {
  const Tensor* ids = find(output, "input_ids");
  const Tensor* labels = find(output, "labels");
  for (const Tensor* tensor : {ids, labels}) {
    if (tensor != nullptr && tensor->dtype == DType::kInt64 && tensor->shape.size() == 2) continue;
    return "the samples became {" + describe(output) + "}; a batch has input_ids and labels, int64[N,T]";
  }
  if (ids->shape != labels->shape) {
    return "the samples became {" + describe(output) + "}; input_ids and labels must be of one shape";
  }
  for (const Tensor& tensor : output) {
    if (tensor.name.ends_with(".ends"))
      return "the batch holds \"" + tensor.name + "\", which only samples have";
  }
  return {};
}

std::string check_finite(const Batch& output) {
  for (const Tensor& tensor : output) {
    if (!is_finite(dense(tensor))) return "\"" + tensor.name + "\" holds a NaN or an infinity";
  }
  return {};
}

std::string readable(const std::string& text) {
  if (text.empty()) return {};
  const Value cut(text.substr(0, kMaxPluginText));
  return Value::parse(cut.dump(-1, ' ', false, Value::error_handler_t::replace)).get<std::string>();
}

const GoodOutputs::Pair* GoodOutputs::like(const Batch& input) const {
  const auto same = [](const Tensor& one, const Tensor& other) {
    return one.shape == other.shape && one.name == other.name;
  };
  for (const Pair& pair : pairs_) {
    if (std::ranges::equal(pair.input, input, same)) return &pair;
  }
  return nullptr;
}

std::string GoodOutputs::check(const Batch& input, const Batch& output, bool lengths_vary) const {
  if (pairs_.empty()) return check_schema(input, output, false);
  const Pair* known = like(input);
  if (known != nullptr) return check_schema(known->output, output, !lengths_vary);
  return check_schema(pairs_.back().output, output, false);
}

void GoodOutputs::accept(const Batch& input, const Batch& output, bool lengths_vary) {
  if (lengths_vary ? !pairs_.empty() : like(input) != nullptr) return;
  if (pairs_.size() == kMostForms) pairs_.erase(pairs_.begin());
  pairs_.push_back({schema_of(input), schema_of(output)});
}

}  // namespace bulkhead
