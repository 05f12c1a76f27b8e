#include "data/caption_tokens.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace bulkhead {

CaptionTokens::CaptionTokens(Tokenizer tokenizer)
    : tokenizer_(std::make_shared<const Tokenizer>(std::move(tokenizer))),
      texts_(vocabulary_size(*tokenizer_)) {}

Result<CaptionTokens> CaptionTokens::make(const DataConfig& config, std::span<const std::string> training) {
  std::string text;
  for (const std::string& caption : training) text += caption;
  auto tokenizer = make_tokenizer(config, text);
  if (!tokenizer) return tokenizer.error();
  return CaptionTokens(std::move(*tokenizer));
}

void CaptionTokens::encode(std::string_view caption, std::span<std::int64_t> row) const {
  CHECK(static_cast<std::int64_t>(row.size()) >= kShortestContext);
  const auto* characters = std::get_if<Characters>(tokenizer_.get());
  const std::vector<std::int32_t> tokens =
      characters != nullptr ? characters->encode(caption, static_cast<std::int32_t>(unknown()))
                            : bulkhead::encode(*tokenizer_, caption);
  const std::size_t kept = std::min(tokens.size(), row.size() - 2);
  row.front() = start();
  std::copy_n(tokens.begin(), kept, row.begin() + 1);
  row[kept + 1] = end();
  std::fill(row.begin() + static_cast<std::ptrdiff_t>(kept) + 2, row.end(), padding());
}

std::string CaptionTokens::decode(std::span<const std::int64_t> row) const {
  std::vector<std::int64_t> text;
  for (const std::int64_t token : row) {
    if (token == start() || token == padding()) continue;
    if (token == end()) break;
    text.push_back(token);
  }
  return bulkhead::decode(*tokenizer_, text);
}

}  // namespace bulkhead
