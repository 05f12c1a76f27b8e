// Messages as text that a diff can show: each frame is lines of hexadecimal
// bytes, an empty line ends it, lines that begin with # are for people.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "protocol/codec.h"

namespace bulkhead {

inline std::string to_golden(const std::string& comment, const Frames& frames) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "# " + comment + "\n";
  for (const Blob& frame : frames) {
    for (std::size_t i = 0; i < frame.size; ++i) {
      const auto byte = std::to_integer<unsigned>(frame.data[i]);
      if (i > 0) text += i % 32 == 0 ? '\n' : ' ';
      text += kDigits[byte >> 4];
      text += kDigits[byte & 15];
    }
    text += "\n\n";
  }
  return text;
}

inline Frames from_golden(const std::filesystem::path& path) {
  std::ifstream file(path);
  Frames frames;
  std::string bytes;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('#')) continue;
    if (line.empty()) {
      frames.push_back(Blob::of(std::exchange(bytes, {})));
      continue;
    }
    for (std::size_t i = 0; i + 1 < line.size(); i += 3) {
      bytes += static_cast<char>(std::stoi(line.substr(i, 2), nullptr, 16));
    }
  }
  return frames;
}

}  // namespace bulkhead
