#include "data/token_rows.h"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

#include "data/rows.h"
#include "data/text.h"

namespace bulkhead {
namespace {

// Of a row's text.
struct TextPart {
  std::string text;
  bool learned = false;
};
using Pieces = std::vector<TextPart>;

Error broken(const Rows& rows, std::size_t row, const std::string& what) {
  return {ErrorCode::kMismatch, rows.place_of(row) + " " + what};
}

// "assistant" → "Assistant: "
std::string heading(std::string role) {
  role.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(role.front())));
  return role + ": ";
}

// A text member of a message; empty where it is none.
std::string text_of(const Value& message, const char* key) {
  if (!message.is_object()) return {};
  const auto found = message.find(key);
  return found != message.end() && found->is_string() ? found->get<std::string>() : std::string();
}

Result<Pieces> pieces_of_messages(const Value& messages, const Rows& rows, std::size_t row) {
  if (!messages.is_array()) return broken(rows, row, "has \"messages\" that are no list");
  Pieces pieces;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Value& message = messages[i];
    const std::string role = text_of(message, "role");
    const bool has_content =
        message.is_object() && message.contains("content") && message["content"].is_string();
    if (role.empty() || !has_content) {
      return broken(
          rows, row,
          "has a message, number " + std::to_string(i) + ", that is not {\"role\": text, \"content\": text}");
    }
    const bool learned = role == "assistant";
    pieces.push_back({heading(role), false});
    pieces.push_back({text_of(message, "content") + "\n", learned});
  }
  return pieces;
}

Result<Pieces> pieces_of(const Rows& rows, std::size_t row) {
  const Value value = Value::parse(rows.texts[row], nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) return broken(rows, row, "is no JSON object");
  if (const auto messages = value.find("messages"); messages != value.end() && !messages->is_null())
    return pieces_of_messages(*messages, rows, row);
  const auto text = value.find("text");
  if (text == value.end() || text->is_null()) {
    return broken(rows, row,
                  "has neither \"messages\" nor \"text\"; a plugin can make them (preprocess) or encode the "
                  "row itself");
  }
  if (!text->is_string()) return broken(rows, row, "has a \"text\" that is no text");
  return Pieces{{text->get<std::string>(), true}};
}

// Builds TokenRows sample by sample.
class Builder {
 public:
  Builder(std::size_t rows, const DataConfig& config, std::int64_t context)
      : context_(static_cast<std::size_t>(context)),
        rows_(split_samples(static_cast<std::int64_t>(rows), config.validation_fraction,
                            config.test_fraction)) {}

  const SplitSizes& rows() const { return rows_; }
  TokenRows& made() { return made_; }

  // The next row: its tokens and as many labels, before the shift.
  template <class Ids, class Labels>
  void add(const Ids& ids, const Labels& labels) {
    const std::size_t length = ids.size() < 2 ? 0 : std::min(ids.size() - 1, context_);
    std::int64_t& split = row_ < rows_.train                      ? made_.sizes.train
                          : row_ < rows_.train + rows_.validation ? made_.sizes.validation
                                                                  : made_.sizes.test;
    ++row_;
    const auto learned = [](auto label) { return static_cast<std::int64_t>(label) != kNotLearned; };
    const auto first = labels.begin() + (length == 0 ? 0 : 1);
    const auto last = first + static_cast<std::ptrdiff_t>(length);
    if (std::none_of(first, last, learned)) {
      ++made_.dropped;
      return;
    }
    for (std::size_t i = 0; i < length; ++i) {
      made_.input_ids.push_back(static_cast<std::int32_t>(ids[i]));
      made_.labels.push_back(static_cast<std::int32_t>(labels[i + 1]));
    }
    made_.ends.push_back(static_cast<std::int64_t>(made_.input_ids.size()));
    ++split;
  }

  Result<TokenRows> finish(const std::string& path) {
    if (made_.sizes.train > 0) return std::move(made_);
    return Error{ErrorCode::kMismatch, "data.path: " + path + " leaves no sample for training: of " +
                                           std::to_string(row_) + " rows " + std::to_string(made_.dropped) +
                                           " have nothing that is learned within model.context, " +
                                           std::to_string(context_) + " tokens"};
  }

 private:
  std::size_t context_;
  SplitSizes rows_;
  std::int64_t row_ = 0;
  TokenRows made_;
};

Status check(const DataConfig& config, std::int64_t context) {
  if (context < 1) {
    return Error{ErrorCode::kMismatch, "model.context: " + std::to_string(context) + " must be at least 1"};
  }
  return check_fractions(config);
}

// In id order, behind one another.
std::string characters_of(const Characters& characters) {
  std::string all;
  for (std::int64_t id = 0; id < characters.size(); ++id) all += characters.decode(std::span(&id, 1));
  return all;
}

}  // namespace

TokenRows::Sample TokenRows::sample(std::int64_t index) const {
  CHECK(index >= 0 && index < count());
  const auto at = static_cast<std::size_t>(index);
  const auto begin = static_cast<std::size_t>(at == 0 ? 0 : ends[at - 1]);
  const std::size_t length = static_cast<std::size_t>(ends[at]) - begin;
  return {std::span(input_ids).subspan(begin, length), std::span(labels).subspan(begin, length)};
}

Result<TokenRows> tokenise(const Rows& rows, const DataConfig& config, std::int64_t context) {
  if (Status good = check(config, context); !good) return good.error();
  Builder builder(rows.texts.size(), config, context);
  std::vector<Pieces> all;
  std::string training;
  for (std::size_t row = 0; row < rows.texts.size(); ++row) {
    Result<Pieces> pieces = pieces_of(rows, row);
    if (!pieces) return pieces.error();
    if (static_cast<std::int64_t>(row) < builder.rows().train) {
      for (const TextPart& piece : *pieces) training += piece.text;
    }
    all.push_back(std::move(*pieces));
  }
  Result<Tokenizer> tokenizer = make_tokenizer(config, training);
  if (!tokenizer) return tokenizer.error();
  const auto* characters = std::get_if<Characters>(&*tokenizer);
  const auto unknown = static_cast<std::int32_t>(vocabulary_size(*tokenizer));
  std::vector<std::int32_t> ids, labels;
  for (const Pieces& pieces : all) {
    ids.clear();
    labels.clear();
    for (const TextPart& piece : pieces) {
      const std::vector<std::int32_t> tokens =
          characters != nullptr ? characters->encode(piece.text, unknown) : encode(*tokenizer, piece.text);
      ids.insert(ids.end(), tokens.begin(), tokens.end());
      labels.insert(labels.end(), tokens.begin(), tokens.end());
      if (!piece.learned) {
        std::fill(labels.end() - static_cast<std::ptrdiff_t>(tokens.size()), labels.end(),
                  static_cast<std::int32_t>(kNotLearned));
      }
    }
    builder.add(ids, labels);
  }
  TokenRows& made = builder.made();
  made.decoding = characters != nullptr ? "char" : "gpt2";
  made.vocabulary = vocabulary_size(*tokenizer) + (characters != nullptr ? 1 : 0);
  made.start_token = start_token(*tokenizer);
  if (characters != nullptr) made.characters = characters_of(*characters);
  return builder.finish(config.path);
}

Result<TokenRows> tokenise_encoded(const NumberLists& ids, const NumberLists& labels,
                                   const DataConfig& config, std::int64_t context) {
  if (Status good = check(config, context); !good) return good.error();
  Builder builder(ids.size(), config, context);
  TokenRows& made = builder.made();
  made.decoding = config.tokenizer == "gpt2" ? "gpt2" : "ids";
  if (made.decoding == "gpt2") {
    Result<Tokenizer> tokenizer = make_tokenizer(config, {});
    if (!tokenizer) return tokenizer.error();
    made.vocabulary = vocabulary_size(*tokenizer);
    made.start_token = start_token(*tokenizer);
  }
  for (std::size_t row = 0; row < ids.size(); ++row) {
    for (const std::span<const std::int64_t> list : {ids[row], labels[row]}) {
      const std::int64_t largest = list.empty() ? -1 : *std::max_element(list.begin(), list.end());
      if (made.decoding == "ids") made.vocabulary = std::max(made.vocabulary, largest + 1);
      if (largest < made.vocabulary) continue;
      return Error{ErrorCode::kMismatch, "data.tokenizer: gpt2 has " + std::to_string(made.vocabulary) +
                                             " tokens, but encode gave " + std::to_string(largest) +
                                             " in row " + std::to_string(row)};
    }
    builder.add(ids[row], labels[row]);
  }
  return builder.finish(config.path);
}

}  // namespace bulkhead
