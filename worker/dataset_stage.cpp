#include "dataset_stage.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "protocol/log.h"
#include "protocol/number_lists.h"
#include "protocol/texts.h"

namespace bulkhead {
namespace {

// What a call of the stage cannot do is said, not done: there is no step that
// it could take effect at.
void log_notes(const Outcome& outcome, const std::string& plugin, const char* hook) {
  for (const Note& note : outcome.notes) {
    if (!note.text.empty()) spdlog::info("{}", note.text);
    for (const auto& [name, value] : note.metrics) spdlog::info("{} = {}", name, value);
  }
  if (outcome.control.any()) {
    spdlog::warn("{} used ctx.control or ctx.set in {}, before training: it has no effect", plugin, hook);
  }
}

Status check_lengths(const NumberLists& ids, const NumberLists& labels, std::size_t count) {
  bool alike = ids.size() == count && labels.size() == count;
  for (std::size_t i = 0; alike && i < count; ++i) alike = ids[i].size() == labels[i].size();
  if (alike) return ok_status();
  return Error{ErrorCode::kMismatch,
               "input_ids and labels are not one list each of equal lengths for each row"};
}

// A label may also be not learned.
bool are_ids(std::span<const std::int64_t> list, bool labels) {
  return std::all_of(list.begin(), list.end(), [&](std::int64_t id) {
    return (id >= 0 && id <= INT32_MAX) || (labels && id == kNotLearned);
  });
}

}  // namespace

DatasetStage::DatasetStage(PluginClient& plugins, const RunConfig& config,
                           std::function<std::string()> stop_asked)
    : plugins_(plugins), config_(config), stop_asked_(std::move(stop_asked)) {}

HookContext DatasetStage::context() const {
  CallContext context;
  context.max_steps = config_.train.max_steps;
  context.max_epochs = config_.train.max_epochs;
  return {context, context};
}

Result<TokenRows> DatasetStage::run(Rows rows) {
  plugins_.wait_ready();
  for (const std::size_t place : plugins_.places_of("preprocess")) {
    if (Status done = preprocess(place, rows); !done) return done.error();
  }
  for (const std::size_t place : plugins_.places_of("keep")) {
    if (Status done = keep(place, rows); !done) return done.error();
  }
  if (rows.texts.empty()) {
    return Error{ErrorCode::kMismatch,
                 "data.path: " + rows.path + " has no row left after preprocess and keep"};
  }
  const std::vector<std::size_t> encoders = plugins_.places_of("encode");
  if (!encoders.empty()) return encode(encoders.front(), rows);
  return tokenise(rows, config_.data, config_.model.context);
}

Status DatasetStage::preprocess(std::size_t place, Rows& rows) {
  std::vector<std::string> made;
  for (std::size_t first = 0, number = 0; first < rows.texts.size(); first += kRowsPerCall, ++number) {
    Result<Batch> reply = call(place, "preprocess", rows, first, first + kRowsPerCall, number);
    if (!reply) return reply.error();
    Result<std::vector<std::string>> texts = unpack_texts(*reply, "rows");
    if (!texts) return failed(place, "preprocess", number, "came back broken: " + texts.error().message);
    for (std::string& text : *texts) {
      if (const std::string wrong = row_objection(text); !wrong.empty()) {
        return failed(place, "preprocess", number, "gave a row that " + wrong);
      }
      made.push_back(std::move(text));
    }
  }
  spdlog::info("{}: preprocess made {} rows of {}", plugins_.name_of(place), made.size(), rows.texts.size());
  rows.texts = std::move(made);
  rows.lines.clear();
  return ok_status();
}

Status DatasetStage::keep(std::size_t place, Rows& rows) {
  Rows kept;
  kept.path = rows.path;
  for (std::size_t first = 0, number = 0; first < rows.texts.size(); first += kRowsPerCall, ++number) {
    const std::size_t last = std::min(first + kRowsPerCall, rows.texts.size());
    Result<Batch> reply = call(place, "keep", rows, first, last, number);
    if (!reply) return reply.error();
    const Tensor* verdicts = find_tensor(*reply, "keep");
    if (verdicts == nullptr || verdicts->dtype != DType::kBool || verdicts->bytes.size != last - first) {
      return failed(place, "keep", number, "came back without one verdict for each row");
    }
    for (std::size_t row = first; row < last; ++row) {
      if (verdicts->bytes.data[row - first] == std::byte{0}) continue;
      kept.texts.push_back(std::move(rows.texts[row]));
      if (row < rows.lines.size()) kept.lines.push_back(rows.lines[row]);
    }
  }
  spdlog::info("{}: keep left {} rows of {}", plugins_.name_of(place), kept.texts.size(), rows.texts.size());
  rows = std::move(kept);
  return ok_status();
}

Result<TokenRows> DatasetStage::encode(std::size_t place, const Rows& rows) {
  NumberLists all_ids;
  NumberLists all_labels;
  for (std::size_t first = 0, number = 0; first < rows.texts.size(); first += kRowsPerCall, ++number) {
    const std::size_t last = std::min(first + kRowsPerCall, rows.texts.size());
    Result<Batch> reply = call(place, "encode", rows, first, last, number);
    if (!reply) return reply.error();
    const Result<NumberLists> ids = NumberLists::unpack(*reply, "input_ids");
    if (!ids) return failed(place, "encode", number, "came back broken: " + ids.error().message);
    const Result<NumberLists> labels = NumberLists::unpack(*reply, "labels");
    if (!labels) return failed(place, "encode", number, "came back broken: " + labels.error().message);
    if (Status alike = check_lengths(*ids, *labels, last - first); !alike) {
      return failed(place, "encode", number, "came back broken: " + alike.error().message);
    }
    for (std::size_t i = 0; i < ids->size(); ++i) {
      const bool good = are_ids((*ids)[i], false) && are_ids((*labels)[i], true);
      if (!good) return failed(place, "encode", number, "gave what is no id of a token");
      all_ids.add((*ids)[i]);
      all_labels.add((*labels)[i]);
    }
  }
  return tokenise_encoded(all_ids, all_labels, config_.data, config_.model.context);
}

Result<Batch> DatasetStage::call(std::size_t place, const char* hook, const Rows& rows, std::size_t first,
                                 std::size_t last, std::size_t number) {
  if (const std::string why = stop_asked_(); !why.empty()) {
    status_ = "interrupted";
    return Error{ErrorCode::kFailed, why};
  }
  last = std::min(last, rows.texts.size());
  Batch input = pack_texts("rows", std::span(rows.texts).subspan(first, last - first));
  std::vector<std::int64_t> numbers(last - first);
  std::iota(numbers.begin(), numbers.end(), static_cast<std::int64_t>(first));
  input.push_back(pack_numbers("sample", numbers));
  CallContext told = context().rank;
  told.micro_batch = static_cast<std::int64_t>(number);
  Outcome outcome = plugins_.call_rows(place, hook, told, std::move(input));
  log_notes(outcome, plugins_.name_of(place), hook);
  if (outcome.kind == Outcome::Kind::kAnswer) return std::move(outcome.batch);
  const bool given_up = outcome.kind == Outcome::Kind::kGivenUp;
  const PluginConfig& config = config_.plugins[static_cast<std::size_t>(plugins_.id_of(place).value)];
  if (given_up && config.on_failure.then == "abort") status_ = "aborted";
  return failed(place, hook, number, "failed: " + outcome.reason);
}

Error DatasetStage::failed(std::size_t place, const char* hook, std::size_t number, const std::string& what) {
  key_ = "plugins." + std::to_string(plugins_.id_of(place).value);
  return {ErrorCode::kFailed, "plugin \"" + plugins_.name_of(place) + "\": " + hook + " of chunk " +
                                  std::to_string(number) + " (rows " + std::to_string(number * kRowsPerCall) +
                                  " and up) " + what + "; a data set cannot be half made"};
}

}  // namespace bulkhead
