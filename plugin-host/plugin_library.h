// A loaded plugin library.  The only file that calls dlopen.
//
// The file is checked before a byte of it runs; it is loaded with all symbols
// bound and none shown to other libraries, and it is never unloaded (its
// threads and destructors may live on), so table() is good for ever.
// Opened on the host's one thread.
#pragma once

#include <string>

#include "bulkhead/abi.h"
#include "protocol/result.h"

namespace bulkhead {

class PluginLibrary {
 public:
  // kUnavailable: the file cannot be read.  kMalformed: it is no plugin
  // library, or the loader refuses it.  kMismatch: another plugin ABI.
  static Result<PluginLibrary> open(const std::string& path);

  const abi::Table& table() const { return *table_; }
  const std::string& checksum() const { return checksum_; }  // sha256 of the file, hex
  const std::string& compiler() const { return compiler_; }

 private:
  PluginLibrary(const abi::Table* table, std::string checksum, std::string compiler)
      : table_(table), checksum_(std::move(checksum)), compiler_(std::move(compiler)) {}

  const abi::Table* table_;
  std::string checksum_;
  std::string compiler_;
};

}  // namespace bulkhead
