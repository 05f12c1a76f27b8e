#include "data/text.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "data/files.h"

namespace bulkhead {
namespace {

// Calls take(character) for each code point of UTF-8 text.
template <class Take>
void each_character(std::string_view text, Take take) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text[at]);
    take(text.substr(at, length));
    at += length;
  }
}

Status require_sample(const std::vector<std::int32_t>& part, const char* purpose, const std::string& advice,
                      const TextData& data, const std::string& path) {
  if (TextData::samples(part, data.context) > 0) return ok_status();
  return Error{ErrorCode::kMismatch, "data.path: " + path + " leaves " + std::to_string(part.size()) +
                                         " tokens for " + purpose + ", but a sample of model.context " +
                                         std::to_string(data.context) + " needs " +
                                         std::to_string(data.context + 1) + advice};
}

// Every part that is asked for has a sample.
Status require_parts(const TextData& data, const DataConfig& config) {
  if (auto enough = require_sample(data.train, "training", "", data, config.path); !enough) return enough;
  if (config.validation_fraction > 0) {
    auto enough = require_sample(data.validation, "validation",
                                 ": raise data.validation_fraction, or set it to 0", data, config.path);
    if (!enough) return enough;
  }
  if (config.test_fraction > 0) {
    return require_sample(data.test, "the test", ": raise data.test_fraction, or set it to 0", data,
                          config.path);
  }
  return ok_status();
}

}  // namespace

Result<Tokenizer> make_tokenizer(const DataConfig& config, std::string_view text) {
  if (config.tokenizer == "char") return Tokenizer(Characters::of(text));
  if (config.tokenizer == "gpt2") {
    if (config.vocabulary.empty()) {
      return Error{ErrorCode::kMismatch,
                   "data.vocabulary: missing; tokenizer gpt2 needs the folder of encoder.json and vocab.bpe"};
    }
    auto bpe = Bpe::load(config.vocabulary);
    if (!bpe) return bpe.error();
    return Tokenizer(std::move(*bpe));
  }
  return Error{ErrorCode::kMismatch, "data.tokenizer: '" + config.tokenizer + "' is neither char nor gpt2"};
}

Characters Characters::of(std::string_view text) {
  std::set<std::string_view> distinct;  // byte order is code point order in UTF-8
  each_character(text, [&](std::string_view character) { distinct.insert(character); });
  Characters vocabulary;
  for (const std::string_view character : distinct) {
    vocabulary.token_of_.emplace(character, static_cast<std::int32_t>(vocabulary.characters_.size()));
    vocabulary.characters_.emplace_back(character);
  }
  return vocabulary;
}

std::vector<std::int32_t> Characters::encode(std::string_view text,
                                             std::optional<std::int32_t> unknown) const {
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  each_character(text, [&](std::string_view character) {
    const auto found = token_of_.find(std::string(character));
    CHECK(found != token_of_.end() || unknown, "a character outside the vocabulary");
    tokens.push_back(found != token_of_.end() ? found->second : *unknown);
  });
  return tokens;
}

std::string Characters::decode(std::span<const std::int64_t> tokens) const {
  std::string text;
  for (const std::int64_t token : tokens) {
    text += token >= 0 && token < size() ? characters_[static_cast<std::size_t>(token)] : "\xEF\xBF\xBD";
  }
  return text;
}

std::vector<std::int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  return std::visit([&](const auto& chosen) { return chosen.encode(text); }, tokenizer);
}

std::string decode(const Tokenizer& tokenizer, std::span<const std::int64_t> tokens) {
  return std::visit([&](const auto& chosen) { return chosen.decode(tokens); }, tokenizer);
}

std::int64_t vocabulary_size(const Tokenizer& tokenizer) {
  return std::visit([](const auto& chosen) { return chosen.size(); }, tokenizer);
}

std::int64_t start_token(const Tokenizer& tokenizer) {
  const auto* characters = std::get_if<Characters>(&tokenizer);
  if (characters != nullptr && !characters->contains("\n")) return 0;
  return encode(tokenizer, "\n").front();
}

Result<TextData> load_text(const DataConfig& config, std::int64_t context) {
  CHECK(context >= 1);
  if (auto fractions = check_fractions(config); !fractions) return fractions.error();
  const auto text = read_file(config.path, "data.path");
  if (!text) return text.error();
  if (const auto bad = first_invalid_utf8(*text)) {
    return Error{ErrorCode::kMalformed,
                 "data.path: " + config.path + " is not UTF-8 text at byte " + std::to_string(*bad)};
  }
  auto tokenizer = make_tokenizer(config, *text);
  if (!tokenizer) return tokenizer.error();

  TextData data;
  data.context = context;
  data.tokenizer = std::make_shared<const Tokenizer>(std::move(*tokenizer));
  const auto tokens = encode(*data.tokenizer, *text);
  const auto sizes = split_samples(static_cast<std::int64_t>(tokens.size()), config.validation_fraction,
                                   config.test_fraction);
  const auto cut = [&](Split split) {
    const SampleRange range = sizes.range(split);
    const auto first = tokens.begin() + range.first;
    return std::vector<std::int32_t>(first, first + range.count);
  };
  data.train = cut(Split::kTrain);
  data.validation = cut(Split::kValidation);
  data.test = cut(Split::kTest);
  if (auto enough = require_parts(data, config); !enough) return enough.error();
  return data;
}

}  // namespace bulkhead
