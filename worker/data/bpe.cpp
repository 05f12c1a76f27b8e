#include "data/bpe.h"

#include <algorithm>
#include <array>
#include <compare>
#include <functional>
#include <optional>
#include <queue>
#include <utility>

#include <nlohmann/json.hpp>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "data/files.h"

namespace bulkhead {
namespace {

constexpr const char* kKey = "data.vocabulary";

// openai/gpt-2 src/encoder.py.  \s of Python's `regex` is White_Space, which
// PCRE2's \s is not quite (U+180E), hence the property by name.
constexpr const char* kPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+)"
    R"(|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+)";

// The two files write bytes as printable characters (bytes_to_unicode in
// openai/gpt-2): printable Latin-1 stands for itself, the other 68 bytes are
// U+0100, U+0101, … in byte order.  Here: code point → byte.
std::array<int, 324> make_byte_of_code_point() {
  std::array<int, 324> byte_of{};
  byte_of.fill(-1);
  std::size_t next = 256;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    byte_of[printable ? byte : next++] = static_cast<int>(byte);
  }
  return byte_of;
}

// "Ġworld" → " world"; nothing if a character stands for no byte.
std::optional<std::string> to_bytes(std::string_view written) {
  static const auto kByteOf = make_byte_of_code_point();
  std::string bytes;
  for (std::size_t at = 0; at < written.size(); at += utf8_length(written[at])) {
    std::size_t code_point = static_cast<unsigned char>(written[at]);
    if (code_point >= 0xE0) return std::nullopt;
    if (code_point >= 0x80) {
      if (at + 1 >= written.size()) return std::nullopt;
      code_point = ((code_point & 0x1FU) << 6U) | (static_cast<unsigned char>(written[at + 1]) & 0x3FU);
    }
    if (code_point >= kByteOf.size() || kByteOf[code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kByteOf[code_point]));
  }
  return bytes;
}

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32U) |
         static_cast<std::uint32_t>(right);
}

Error malformed(const std::string& where, const std::string& what) {
  return {ErrorCode::kMalformed, std::string(kKey) + ": " + where + " " + what};
}

}  // namespace

struct Bpe::Splitter {
  struct FreeCode {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  struct FreeMatch {
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  };

  Splitter() {
    int error = 0;
    PCRE2_SIZE where = 0;
    code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(kPattern), PCRE2_ZERO_TERMINATED,
                             PCRE2_UTF | PCRE2_UCP, &error, &where, nullptr));
    CHECK(code != nullptr, "the split pattern does not compile at " + std::to_string(where));
    // Without a JIT (hardened kernels) matching falls back to the interpreter.
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  }

  // Calls take(word) for each piece of `text`, in order.
  template <class Take>
  void split(std::string_view text, Take take) const {
    const std::unique_ptr<pcre2_match_data, FreeMatch> match(
        pcre2_match_data_create_from_pattern(code.get(), nullptr));
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    for (std::size_t at = 0; at < text.size();) {
      const int found =
          pcre2_match(code.get(), subject, text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), nullptr);
      const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match.get());
      // Every character is in one of the alternatives, so only a resource limit
      // can fail: then the rest of a very long run is cut by bytes.
      const bool whole = found > 0 && bounds[0] == at && bounds[1] > at;
      const std::size_t end = whole ? bounds[1] : at + utf8_length(text[at]);
      take(text.substr(at, end - at));
      at = end;
    }
  }

  std::unique_ptr<pcre2_code, FreeCode> code;
};

Bpe::Bpe() : byte_tokens_(256, -1), splitter_(std::make_unique<Splitter>()) {}
Bpe::Bpe(Bpe&&) noexcept = default;
Bpe& Bpe::operator=(Bpe&&) noexcept = default;
Bpe::~Bpe() = default;

Result<Bpe> Bpe::load(const std::filesystem::path& folder) {
  Bpe bpe;
  if (auto tokens = bpe.load_tokens(folder / "encoder.json"); !tokens) return tokens.error();
  if (auto merges = bpe.load_merges(folder / "vocab.bpe"); !merges) return merges.error();
  return bpe;
}

Status Bpe::load_tokens(const std::filesystem::path& file) {
  const auto text = read_file(file, kKey);
  if (!text) return text.error();
  const auto json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return malformed(file.string(), "is not a JSON object of tokens and ids");
  bytes_of_.resize(json.size());
  std::vector<bool> seen(json.size(), false);
  for (const auto& [written, id] : json.items()) {
    const auto bytes = to_bytes(written);
    if (!bytes || bytes->empty()) return malformed(file.string(), "has '" + written + "', which is no token");
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= json.size() || seen[id.get<std::size_t>()]) {
      return malformed(file.string(), "gives '" + written + "' the id " + id.dump() + "; ids must be 0 … " +
                                          std::to_string(json.size() - 1) + ", each once");
    }
    const auto token = id.get<std::int32_t>();
    seen[static_cast<std::size_t>(token)] = true;
    bytes_of_[static_cast<std::size_t>(token)] = *bytes;
    token_of_[*bytes] = token;
    if (bytes->size() == 1) byte_tokens_[static_cast<unsigned char>(bytes->front())] = token;
  }
  for (std::size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
    if (byte_tokens_[byte] < 0)
      return malformed(file.string(), "has no token for byte " + std::to_string(byte));
  }
  return ok_status();
}

Status Bpe::load_merges(const std::filesystem::path& file) {
  const auto text = read_file(file, kKey);
  if (!text) return text.error();
  std::int32_t rank = 0;
  std::int64_t line_number = 0;
  for (std::size_t begin = 0; begin < text->size();) {
    const std::size_t end = std::min(text->find('\n', begin), text->size());
    const std::string_view line = std::string_view(*text).substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.empty() || (line_number == 1 && line.starts_with("#version"))) continue;
    if (auto added = add_merge(line, rank++, file.string() + ":" + std::to_string(line_number)); !added)
      return added;
  }
  return ok_status();
}

Status Bpe::add_merge(std::string_view line, std::int32_t rank, const std::string& where) {
  const std::size_t space = line.find(' ');
  if (space == std::string_view::npos) return malformed(where, "is not two tokens with a space between");
  const auto left = to_bytes(line.substr(0, space));
  const auto right = to_bytes(line.substr(space + 1));
  if (!left || !right) return malformed(where, "has a character that stands for no byte");
  const auto left_token = token_of_.find(*left);
  const auto right_token = token_of_.find(*right);
  const auto whole = token_of_.find(*left + *right);
  if (left_token == token_of_.end() || right_token == token_of_.end() || whole == token_of_.end()) {
    return malformed(where, "merges '" + std::string(line) + "', which encoder.json does not know");
  }
  merges_.emplace(pair_key(left_token->second, right_token->second), Merge{rank, whole->second});
  return ok_status();
}

const Bpe::Merge* Bpe::merge_of(std::int32_t left, std::int32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

namespace {

// The tokens of one word as a linked list, so that a merge is O(1).
struct TokenList {
  struct Node {
    std::int32_t token;
    std::size_t previous, next;  // end() where there is none
  };

  explicit TokenList(std::string_view word, const std::vector<std::int32_t>& byte_tokens) {
    nodes.reserve(word.size());
    for (std::size_t i = 0; i < word.size(); ++i) {
      const std::int32_t token = byte_tokens[static_cast<unsigned char>(word[i])];
      nodes.push_back({token, i == 0 ? word.size() : i - 1, i + 1});
    }
  }
  std::size_t end() const { return nodes.size(); }
  // Puts `token` in place of the one at `left` and its neighbour.
  void merge(std::size_t left, std::int32_t token) {
    const std::size_t right = nodes[left].next;
    nodes[left].token = token;
    nodes[left].next = nodes[right].next;
    nodes[right].token = -1;
    if (nodes[left].next != end()) nodes[nodes[left].next].previous = left;
  }

  std::vector<Node> nodes;
};

// A pair as it was when it was found; stale once one of the two has changed.
struct Candidate {
  std::int32_t rank;
  std::size_t left;
  std::int32_t left_token, right_token;
  auto operator<=>(const Candidate&) const = default;
};

}  // namespace

// Merges the pair of lowest rank, leftmost first, until none is left.  A heap
// over a linked list: a run of a megabyte without a space must not take hours.
std::vector<std::int32_t> Bpe::merge_word(std::string_view word) const {
  TokenList list(word, byte_tokens_);
  auto& nodes = list.nodes;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto offer = [&](std::size_t left) {
    if (left == list.end() || nodes[left].next == list.end()) return;
    const std::int32_t right_token = nodes[nodes[left].next].token;
    if (const Merge* merge = merge_of(nodes[left].token, right_token)) {
      candidates.push({merge->rank, left, nodes[left].token, right_token});
    }
  };
  for (std::size_t i = 0; i < list.end(); ++i) offer(i);
  while (!candidates.empty()) {
    const auto [rank, left, left_token, right_token] = candidates.top();
    candidates.pop();
    const std::size_t right = nodes[left].next;
    const bool stale =
        nodes[left].token != left_token || right == list.end() || nodes[right].token != right_token;
    if (stale) continue;
    list.merge(left, merge_of(left_token, right_token)->token);
    offer(nodes[left].previous);
    offer(left);
  }
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i < list.end(); i = nodes[i].next) tokens.push_back(nodes[i].token);
  return tokens;
}

std::vector<std::int32_t> Bpe::encode(std::string_view text) const {
  std::vector<std::int32_t> tokens;
  std::unordered_map<std::string_view, std::vector<std::int32_t>> known;
  splitter_->split(text, [&](std::string_view word) {
    auto found = known.find(word);
    if (found == known.end()) found = known.emplace(word, merge_word(word)).first;
    tokens.insert(tokens.end(), found->second.begin(), found->second.end());
  });
  return tokens;
}

std::string Bpe::decode(std::span<const std::int64_t> tokens) const {
  std::string text;
  for (const std::int64_t token : tokens) {
    text += token >= 0 && token < size() ? bytes_of_[static_cast<std::size_t>(token)] : "\xEF\xBF\xBD";
  }
  return text;
}

}  // namespace bulkhead
