#include "plugin_library.h"

#include <cerrno>
#include <cstring>
#include <dlfcn.h>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "elf_note.h"
#include "protocol/sha256.h"

namespace bulkhead {
namespace {

Result<std::string> read_file(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return Error{ErrorCode::kUnavailable, "cannot read " + path + ": " + std::strerror(EISDIR)};
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(file), {}};
  if (file.bad() || !file.is_open()) {
    return Error{ErrorCode::kUnavailable,
                 "cannot read " + path + ": " + std::strerror(errno == 0 ? EIO : errno)};
  }
  return bytes;
}

Error wrong_version(const std::string& path, std::uint32_t version) {
  return {ErrorCode::kMismatch, path + " was built for plugin ABI " + std::to_string(version) +
                                    ", this host has " + std::to_string(abi::kVersion) +
                                    "; rebuild it with this bulkhead's bulkhead/plugin.h"};
}

}  // namespace

Result<PluginLibrary> PluginLibrary::open(const std::string& path) {
  const Result<std::string> file = read_file(path);
  if (!file) return file.error();
  const Result<ElfNote> note = read_elf_note(*file, path);
  if (!note) return note.error();
  if (note->version != abi::kVersion) return wrong_version(path, note->version);

  // A name without a slash would be looked for in the system's directories.
  void* library = ::dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    return Error{ErrorCode::kMalformed, std::string("cannot load the library: ") + ::dlerror()};
  const auto entry = reinterpret_cast<abi::EntryPoint>(::dlsym(library, abi::kEntryPoint));
  if (entry == nullptr) {
    return Error{ErrorCode::kMalformed, path + " does not export " + abi::kEntryPoint +
                                            "; it needs the line BULKHEAD_PLUGIN(YourClass)"};
  }
  const abi::Table* table = entry();
  if (table->version != abi::kVersion) return wrong_version(path, table->version);
  return PluginLibrary(table, to_hex(sha256(*file)), note->compiler);
}

}  // namespace bulkhead
