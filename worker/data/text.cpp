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

Status require_sample(const std::vector<std::int32_t>& part, const char* purpose, const std::string& advice,
                      const TextData& data, const std::string& path) {
  if (TextData::samples(part, data.context) > 0) return ok_status();
  return Error{ErrorCode::kMismatch, "data.path: " + path + " leaves " + std::to_string(part.size()) +
                                         " tokens for " + purpose + ", but a sample of model.context " +
                                         std::to_string(data.context) + " needs " +
                                         std::to_string(data.context + 1) + advice};
}

}  // namespace

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

std::vector<std::int32_t> Characters::encode(std::string_view text) const {
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  each_character(text, [&](std::string_view character) {
    const auto found = token_of_.find(std::string(character));
    CHECK(found != token_of_.end(), "a character outside the vocabulary");
    tokens.push_back(found->second);
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
  CHECK(context >= 1 && config.validation_fraction >= 0 && config.validation_fraction < 1);
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
  data.train = encode(*data.tokenizer, *text);
  const auto kept = static_cast<std::ptrdiff_t>(static_cast<double>(data.train.size()) *
                                                (1.0 - config.validation_fraction));
  data.validation.assign(data.train.begin() + kept, data.train.end());
  data.train.resize(static_cast<std::size_t>(kept));
  if (auto enough = require_sample(data.train, "training", "", data, config.path); !enough)
    return enough.error();
  if (config.validation_fraction > 0) {
    auto enough = require_sample(data.validation, "validation",
                                 ": raise data.validation_fraction, or set it to 0", data, config.path);
    if (!enough) return enough.error();
  }
  return data;
}

}  // namespace bulkhead
