#include "data/dataset.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/ne.h>
#include <c10/core/ScalarType.h>

namespace bulkhead {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

std::size_t place(std::int64_t index, std::int64_t size) {
  CHECK(index >= 0 && index < size, "sample " + std::to_string(index) + " of " + std::to_string(size));
  return static_cast<std::size_t>(index);
}

at::Tensor new_tensor(BatchMemory* memory, at::IntArrayRef shape, at::ScalarType type) {
  return memory == nullptr ? at::empty(shape, type) : memory->empty(shape, type);
}

TensorBatch gather_text(const TextData& text, Split split, std::span<const std::int64_t> indices,
                        BatchMemory* memory) {
  const auto& tokens = text.part(split);
  const auto count = static_cast<std::int64_t>(indices.size());
  at::Tensor inputs = new_tensor(memory, {count, text.context}, at::kLong);
  at::Tensor labels = new_tensor(memory, {count, text.context}, at::kLong);
  auto* input = inputs.mutable_data_ptr<std::int64_t>();
  auto* label = labels.mutable_data_ptr<std::int64_t>();
  const auto context = static_cast<std::ptrdiff_t>(text.context);
  for (const std::int64_t index : indices) {
    const std::size_t sample = place(index, TextData::samples(tokens, text.context));
    const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(sample) * context;
    input = std::copy(first, first + context, input);
    label = std::copy(first + 1, first + 1 + context, label);
  }
  return {{"input_ids", inputs}, {"labels", labels}};
}

// Normalised value of each of the 256 grey levels.
std::array<float, 256> make_grey_levels() {
  std::array<float, 256> levels{};
  for (std::size_t i = 0; i < levels.size(); ++i) {
    levels[i] = (static_cast<float>(i) / 255.0F - kMnistMean) / kMnistStd;
  }
  return levels;
}

TensorBatch gather_images(const ImageData& data, Split split, std::span<const std::int64_t> indices,
                          BatchMemory* memory) {
  static const auto kLevels = make_grey_levels();
  const auto [set, range] = data.part(split);
  const auto count = static_cast<std::int64_t>(indices.size());
  at::Tensor images = new_tensor(memory, {count, 1, data.height, data.width}, at::kFloat);
  at::Tensor labels = new_tensor(memory, {count}, at::kLong);
  auto* pixel = images.mutable_data_ptr<float>();
  auto* label = labels.mutable_data_ptr<std::int64_t>();
  const auto image_size = static_cast<std::size_t>(data.height * data.width);
  for (const std::int64_t index : indices) {
    const std::size_t sample = static_cast<std::size_t>(range.first) + place(index, range.count);
    *label++ = static_cast<unsigned char>(set.labels[sample]);
    for (std::size_t i = 0; i < image_size; ++i) {
      *pixel++ = kLevels[static_cast<unsigned char>(set.pixels[sample * image_size + i])];
    }
  }
  return {{"images", images}, {"labels", labels}};
}

TensorBatch gather_rows(const TableData& table, Split split, std::span<const std::int64_t> indices,
                        BatchMemory* memory) {
  const auto width = static_cast<std::ptrdiff_t>(table.columns.size());
  const auto count = static_cast<std::int64_t>(indices.size());
  const SampleRange range = table.sizes.range(split);
  at::Tensor features = new_tensor(memory, {count, width}, at::kFloat);
  at::Tensor labels = new_tensor(memory, {count}, at::kLong);
  auto* feature = features.mutable_data_ptr<float>();
  auto* label = labels.mutable_data_ptr<std::int64_t>();
  for (const std::int64_t index : indices) {
    const std::size_t row = static_cast<std::size_t>(range.first) + place(index, range.count);
    const auto cells = table.features.begin() + static_cast<std::ptrdiff_t>(row) * width;
    feature = std::copy(cells, cells + width, feature);
    *label++ = table.labels[row];
  }
  return {{"features", features}, {"labels", labels}};
}

// What the data set itself made, so it must fit.
template <class Samples>
TensorBatch gather_samples(const Samples& samples, Split split, std::span<const std::int64_t> indices) {
  auto collated = samples.collate(samples.raw_samples(split, indices));
  CHECK(collated.ok(), collated.error().message);
  auto batch = from_wire(*collated);
  CHECK(batch.ok(), batch.error().message);
  return std::move(*batch);
}

template <class Loaded>
Result<Dataset> dataset_of(Result<Loaded> loaded) {
  if (!loaded) return loaded.error();
  return Dataset(std::move(*loaded));
}

Status check_numbers(const DataConfig& config, std::int64_t context) {
  if (config.path.empty()) return Error{ErrorCode::kMismatch, "data.path: missing"};
  if (auto fractions = check_fractions(config); !fractions) return fractions;
  if ((config.type == "text" || config.type == "rows") && context < 1) {
    return Error{ErrorCode::kMismatch, "model.context: " + std::to_string(context) + " must be at least 1"};
  }
  return ok_status();
}

Error mismatch(const std::string& what) { return {ErrorCode::kMismatch, "the batch " + what}; }

Status check_range(const at::Tensor& values, const std::string& name, std::int64_t bound) {
  const auto [low, high] = at::aminmax(values);
  for (const std::int64_t value : {low.item<std::int64_t>(), high.item<std::int64_t>()}) {
    if (value >= 0 && value < bound) continue;
    return mismatch("has " + std::to_string(value) + " in '" + name + "'; valid are 0 … " +
                    std::to_string(bound - 1));
  }
  return ok_status();
}

Status check_labels(const at::Tensor& labels, const std::string& name, std::int64_t bound) {
  const at::Tensor learned = labels.masked_select(labels.ne(kNotLearned));
  if (learned.numel() == 0) return mismatch("has no label in '" + name + "' that is learned");
  return check_range(learned, name, bound);
}

// What a tensor of a batch must look like.
struct Wanted {
  std::string name;
  at::ScalarType type;
  std::vector<std::int64_t> sample;  // shape without N
  std::int64_t bound;                // values must be below; 0 = any
  bool may_be_shorter = false;       // the last dimension is tokens: fewer fit too
  bool may_be_left_out = false;      // kNotLearned is a value too, but not of all
};

std::vector<Wanted> wanted_tensors(const DatasetFacts& facts) {
  switch (facts.kind) {
    case DataKind::kRows:
      return {{"input_ids", at::kLong, {facts.context}, facts.vocabulary, true},
              {"labels", at::kLong, {facts.context}, facts.vocabulary, true, true}};
    case DataKind::kText:
      return {{"input_ids", at::kLong, {facts.context}, facts.vocabulary, true},
              {"labels", at::kLong, {facts.context}, facts.vocabulary, true}};
    case DataKind::kImages:
      return {{"images", at::kFloat, {facts.channels, facts.height, facts.width}, 0},
              {"labels", at::kLong, {}, facts.classes}};
    case DataKind::kFeatures:
      return {{"features", at::kFloat, {facts.features}, 0}, {"labels", at::kLong, {}, facts.classes}};
    case DataKind::kCaptions:
      return {{"images", at::kFloat, {facts.channels, facts.height, facts.width}, 0},
              {"input_ids", at::kLong, {facts.context}, facts.vocabulary, true}};
  }
  CHECK(false, "unknown data kind");
  return {};
}

// A text may be shorter than the context, never longer; everything else is exact.
bool fits(const at::Tensor& value, const Wanted& wanted) {
  if (value.scalar_type() != wanted.type ||
      value.dim() != 1 + static_cast<std::int64_t>(wanted.sample.size())) {
    return false;
  }
  if (value.numel() == 0) return false;
  const auto sample = value.sizes().slice(1);
  return wanted.may_be_shorter ? sample[0] <= wanted.sample[0] : sample.equals(wanted.sample);
}

std::string shape_text(const at::Tensor& value) {
  std::string text = std::string(c10::toString(value.scalar_type())) + "[";
  for (std::int64_t i = 0; i < value.dim(); ++i) text += (i == 0 ? "" : ",") + std::to_string(value.size(i));
  return text + "]";
}

// Every row must have the token whose state stands for the caption.
Status check_ends(const at::Tensor& input_ids, std::int64_t end_token) {
  const at::Tensor lacks = input_ids.eq(end_token).any(1).logical_not();
  if (!lacks.any().item<bool>()) return ok_status();
  return mismatch("has a caption without its end, the token " + std::to_string(end_token) +
                  ", in 'input_ids'");
}

DatasetFacts facts_of(const CaptionData& captions) {
  DatasetFacts facts;
  facts.kind = DataKind::kCaptions;
  facts.vocabulary = captions.tokens().size();
  facts.context = captions.context();
  facts.start_token = captions.tokens().start();
  facts.end_token = captions.tokens().end();
  facts.padding_token = captions.tokens().padding();
  facts.decode = [tokens = captions.tokens()](std::span<const std::int64_t> row) {
    return tokens.decode(row);
  };
  facts.channels = 3;
  facts.height = captions.image_size();
  facts.width = captions.image_size();
  return facts;
}

DatasetFacts facts_of(const RowData& rows) {
  DatasetFacts facts;
  facts.kind = DataKind::kRows;
  facts.vocabulary = rows.rows().vocabulary;
  facts.context = rows.context();
  facts.start_token = rows.rows().start_token;
  facts.decode = [rows](std::span<const std::int64_t> tokens) { return rows.decode(tokens); };
  return facts;
}

}  // namespace

const char* name_of(DataKind kind) {
  switch (kind) {
    case DataKind::kText:
      return "text";
    case DataKind::kImages:
      return "images";
    case DataKind::kFeatures:
      return "features";
    case DataKind::kCaptions:
      return "captions";
    case DataKind::kRows:
      return "rows";
  }
  return "unknown";
}

std::int64_t Dataset::size(Split split) const {
  return std::visit(
      Overloaded{[&](const TextData& text) { return TextData::samples(text.part(split), text.context); },
                 [&](const ImageData& images) { return images.part(split).range.count; },
                 [&](const TableData& table) { return table.sizes.range(split).count; },
                 [&](const CaptionData& captions) { return captions.sizes().range(split).count; },
                 [&](const RowData& rows) { return rows.sizes().range(split).count; }},
      data_);
}

TensorBatch Dataset::gather(Split split, std::span<const std::int64_t> indices, BatchMemory* memory) const {
  return std::visit(
      Overloaded{[&](const TextData& text) { return gather_text(text, split, indices, memory); },
                 [&](const ImageData& images) { return gather_images(images, split, indices, memory); },
                 [&](const TableData& table) { return gather_rows(table, split, indices, memory); },
                 [&](const CaptionData& pairs) { return gather_samples(pairs, split, indices); },
                 [&](const RowData& rows) { return gather_samples(rows, split, indices); }},
      data_);
}

Batch Dataset::raw_samples(Split split, std::span<const std::int64_t> indices) const {
  CHECK(has_samples(), "this data has no samples to show to plugins");
  if (const auto* rows = std::get_if<RowData>(&data_)) return rows->raw_samples(split, indices);
  return std::get<CaptionData>(data_).raw_samples(split, indices);
}

Result<Batch> Dataset::collate(const Batch& raw) const {
  CHECK(has_samples(), "this data has no samples to show to plugins");
  if (const auto* rows = std::get_if<RowData>(&data_)) return rows->collate(raw);
  return std::get<CaptionData>(data_).collate(raw);
}

DatasetFacts Dataset::facts() const {
  DatasetFacts facts;
  if (const auto* text = std::get_if<TextData>(&data_)) {
    facts.kind = DataKind::kText;
    facts.vocabulary = vocabulary_size(*text->tokenizer);
    facts.context = text->context;
    facts.start_token = start_token(*text->tokenizer);
    facts.decode = [tokenizer = text->tokenizer](std::span<const std::int64_t> tokens) {
      return decode(*tokenizer, tokens);
    };
  } else if (const auto* images = std::get_if<ImageData>(&data_)) {
    facts.kind = DataKind::kImages;
    facts.classes = images->classes;
    facts.channels = 1;
    facts.height = images->height;
    facts.width = images->width;
  } else if (const auto* table = std::get_if<TableData>(&data_)) {
    facts.kind = DataKind::kFeatures;
    facts.classes = static_cast<std::int64_t>(table->classes.size());
    facts.features = static_cast<std::int64_t>(table->columns.size());
  } else if (const auto* captions = std::get_if<CaptionData>(&data_)) {
    facts = facts_of(*captions);
  } else {
    facts = facts_of(std::get<RowData>(data_));
  }
  return facts;
}

Result<Dataset> load_dataset(const DataConfig& config, std::int64_t context) {
  if (auto numbers = check_numbers(config, context); !numbers) return numbers.error();
  if (config.type == "text") return dataset_of(load_text(config, context));
  if (config.type == "mnist") return dataset_of(load_mnist(config));
  if (config.type == "csv") return dataset_of(load_csv(config));
  if (config.type == "captions") return dataset_of(CaptionData::load(config, context));
  if (config.type == "rows") return dataset_of(RowData::load(config, context));
  return Error{ErrorCode::kMismatch,
               "data.type: '" + config.type + "' is none of text, mnist, csv, captions, rows"};
}

Status check_batch(const TensorBatch& batch, const DatasetFacts& facts) {
  const at::Tensor* first = nullptr;
  for (const Wanted& wanted : wanted_tensors(facts)) {
    const at::Tensor* value = find_tensor(batch, wanted.name);
    if (value == nullptr) return mismatch("has no '" + wanted.name + "'");
    if (!fits(*value, wanted)) {
      return mismatch("has a '" + wanted.name + "' of " + shape_text(*value) +
                      ", which does not fit the model");
    }
    if (first == nullptr) first = value;
    const bool of_tokens = facts.kind == DataKind::kText || facts.kind == DataKind::kRows;
    const bool same_length =
        value->size(0) == first->size(0) && (!of_tokens || value->size(1) == first->size(1));
    if (!same_length) return mismatch("has '" + wanted.name + "' for another number of samples or tokens");
    if (wanted.bound == 0) continue;
    const auto in_range = wanted.may_be_left_out ? check_labels(*value, wanted.name, wanted.bound)
                                                 : check_range(*value, wanted.name, wanted.bound);
    if (!in_range) return in_range;
  }
  if (facts.kind == DataKind::kCaptions) return check_ends(tensor_named(batch, "input_ids"), facts.end_token);
  return ok_status();
}

}  // namespace bulkhead
