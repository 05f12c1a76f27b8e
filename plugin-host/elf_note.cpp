#include "elf_note.h"

#include <cstring>
#include <elf.h>
#include <link.h>
#include <optional>

#include "bulkhead/abi.h"

namespace bulkhead {
namespace {

// What this program was itself built for.
constexpr std::uint8_t kClass = sizeof(ElfW(Addr)) == 8 ? ELFCLASS64 : ELFCLASS32;
constexpr std::uint8_t kData = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;

// The machine of the running program, from the header that the loader mapped.
std::uint16_t own_machine() {
  static const std::uint16_t kMachine = [] {
    std::uint16_t machine = EM_NONE;
    // The first entry is the program itself; its first segment begins with the ELF header.
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* out) {
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& segment = info->dlpi_phdr[i];
            if (segment.p_type != PT_LOAD || segment.p_offset != 0) continue;
            const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(info->dlpi_addr + segment.p_vaddr);
            *static_cast<std::uint16_t*>(out) = header->e_machine;
          }
          return 1;
        },
        &machine);
    return machine;
  }();
  return kMachine;
}

// A copy of the T at `offset`; nothing when it does not lie inside the file.
template <class T>
std::optional<T> read_at(std::string_view file, std::uint64_t offset) {
  if (offset > file.size() || file.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

bool inside(std::string_view file, std::uint64_t offset, std::uint64_t size) {
  return offset <= file.size() && size <= file.size() - offset;
}

// Looks through one segment of notes.
std::optional<ElfNote> find_note(std::string_view notes) {
  while (const auto header = read_at<ElfW(Nhdr)>(notes, 0)) {
    const auto aligned = [](std::uint64_t size) { return (size + 3) & ~std::uint64_t{3}; };
    const std::uint64_t size = sizeof *header + aligned(header->n_namesz) + aligned(header->n_descsz);
    if (size > notes.size()) return std::nullopt;
    const auto note = read_at<abi::Note>(notes.substr(0, size), 0);
    if (note && note->type == abi::kNoteType &&
        std::string_view(note->name, abi::kNoteName.size()) == abi::kNoteName) {
      return ElfNote{note->version,
                     std::string(note->compiler, strnlen(note->compiler, sizeof note->compiler))};
    }
    notes.remove_prefix(size);
  }
  return std::nullopt;
}

Error malformed(const std::string& message) { return {ErrorCode::kMalformed, message}; }

}  // namespace

Result<ElfNote> read_elf_note(std::string_view file, const std::string& path) {
  const auto header = read_at<ElfW(Ehdr)>(file, 0);
  if (!file.starts_with(std::string_view(ELFMAG, SELFMAG)))
    return malformed(path + " is not a shared library");
  const Error truncated = malformed(path + " is truncated: the library is longer than the file");
  if (!header) return truncated;
  if (header->e_ident[EI_CLASS] != kClass || header->e_ident[EI_DATA] != kData ||
      header->e_machine != own_machine()) {
    return malformed(path + " is a library for another kind of machine (ELF machine " +
                     std::to_string(header->e_machine) + ", this one is " + std::to_string(own_machine()) +
                     ")");
  }
  if (header->e_type != ET_DYN)
    return malformed(path + " is an ELF file but not a shared library; link it with -shared");

  std::optional<ElfNote> note;
  for (std::uint64_t i = 0; i < header->e_phnum; ++i) {
    const auto segment = read_at<ElfW(Phdr)>(file, header->e_phoff + i * sizeof(ElfW(Phdr)));
    if (!segment || !inside(file, segment->p_offset, segment->p_filesz)) return truncated;
    if (segment->p_type == PT_NOTE && !note)
      note = find_note(file.substr(segment->p_offset, segment->p_filesz));
  }
  if (header->e_shoff != 0 &&
      !inside(file, header->e_shoff, std::uint64_t{header->e_shnum} * header->e_shentsize)) {
    return truncated;
  }
  if (!note)
    return malformed(path + " is not a bulkhead plugin: it needs the line BULKHEAD_PLUGIN(YourClass)");
  return *note;
}

}  // namespace bulkhead
