#include "data/files.h"

#include <array>
#include <fstream>
#include <memory>
#include <sstream>
#include <system_error>
#include <zlib.h>

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

Status require_regular_file(const fs::path& path, std::string_view key) {
  std::error_code ignored;
  const auto status = fs::status(path, ignored);
  const std::string subject = std::string(key) + ": " + path.string();
  if (!fs::exists(status)) return Error{ErrorCode::kUnavailable, subject + " does not exist"};
  if (fs::is_directory(status)) return Error{ErrorCode::kMismatch, subject + " is a folder, not a file"};
  if (!fs::is_regular_file(status)) return Error{ErrorCode::kMismatch, subject + " is not a regular file"};
  return ok_status();
}

struct CloseGzip {
  void operator()(gzFile file) const { gzclose(file); }
};
using GzipFile = std::unique_ptr<gzFile_s, CloseGzip>;

bool continues(std::string_view text, std::size_t from, std::size_t count) {
  if (from + count > text.size()) return false;
  for (std::size_t i = from; i < from + count; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U) return false;
  }
  return true;
}

// Length of the valid sequence at `from`, or 0.
std::size_t valid_sequence(std::string_view text, std::size_t from) {
  const auto lead = static_cast<unsigned char>(text[from]);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const std::size_t length = utf8_length(text[from]);
  if (!continues(text, from + 1, length - 1)) return 0;
  const auto second = static_cast<unsigned char>(text[from + 1]);
  const bool overlong = (lead == 0xE0 && second < 0xA0) || (lead == 0xF0 && second < 0x90);
  const bool surrogate = lead == 0xED && second > 0x9F;
  const bool past_the_end = lead == 0xF4 && second > 0x8F;
  return overlong || surrogate || past_the_end ? 0 : length;
}

}  // namespace

Result<std::string> read_file(const fs::path& path, std::string_view key) {
  if (auto regular = require_regular_file(path, key); !regular) return regular.error();
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  // An empty file makes operator<< set failbit, which is no read error.
  if (file && file.peek() != std::ifstream::traits_type::eof()) bytes << file.rdbuf();
  if (!file.is_open() || file.bad() || bytes.fail()) {
    return Error{ErrorCode::kUnavailable, std::string(key) + ": " + path.string() + " cannot be read"};
  }
  return std::move(bytes).str();
}

Result<std::string> read_gzip(const fs::path& path, std::string_view key, std::size_t limit_bytes) {
  if (auto regular = require_regular_file(path, key); !regular) return regular.error();
  const std::string subject = std::string(key) + ": " + path.string();
  const GzipFile file(gzopen(path.c_str(), "rb"));
  if (!file) return Error{ErrorCode::kUnavailable, subject + " cannot be read"};
  std::string bytes;
  std::array<char, 1 << 16> chunk{};
  for (;;) {
    const int count = gzread(file.get(), chunk.data(), static_cast<unsigned>(chunk.size()));
    int code = Z_OK;
    const char* reason = gzerror(file.get(), &code);
    // A file cut short reads as an end of file with Z_BUF_ERROR.
    if (count < 0 || (code != Z_OK && code != Z_STREAM_END)) {
      const std::string why = code == Z_BUF_ERROR ? "the file is cut short" : reason;
      return Error{ErrorCode::kMalformed, subject + " is not a whole gzip file: " + why};
    }
    if (count == 0) return bytes;
    bytes.append(chunk.data(), static_cast<std::size_t>(count));
    if (bytes.size() > limit_bytes) {
      return Error{ErrorCode::kMalformed,
                   subject + " unpacks to more than " + std::to_string(limit_bytes) + " bytes"};
    }
  }
}

std::optional<std::size_t> first_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = valid_sequence(text, at);
    if (length == 0) return at;
    at += length;
  }
  return std::nullopt;
}

std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  if (byte < 0x80) return 1;
  if (byte < 0xE0) return 2;
  return byte < 0xF0 ? 3 : 4;
}

}  // namespace bulkhead
