// SHA-256 (FIPS 180-4), by OpenSSL's libcrypto, which uses the CPU's SHA
// instructions: hashing must not be what a checkpoint waits for.
// Not thread-safe per object.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace bulkhead {

class Sha256 {
 public:
  using Digest = std::array<std::uint8_t, 32>;
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(const void* data, std::size_t size_bytes);
  // Ends the hash; call once.
  Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Sha256::Digest sha256(std::string_view bytes);
// Lower-case hexadecimal.
std::string to_hex(const Sha256::Digest& digest);

}  // namespace bulkhead
