#include "protocol/rng.h"

#include <string_view>

#include <msgpack.hpp>

#include "protocol/result.h"
#include "protocol/sha256.h"

namespace bulkhead {
namespace {

constexpr std::uint64_t kMultiplier0 = 0xD2E7470EE14C6C93ULL;
constexpr std::uint64_t kMultiplier1 = 0xCA5A826395121157ULL;
constexpr std::uint64_t kWeyl0 = 0x9E3779B97F4A7C15ULL;
constexpr std::uint64_t kWeyl1 = 0xBB67AE8584CAA73BULL;
constexpr int kRounds = 10;

__extension__ using Wide = unsigned __int128;

std::array<std::uint64_t, 4> philox_block(std::array<std::uint64_t, 4> counter, Philox::Key key) {
  for (int round = 0; round < kRounds; ++round) {
    const Wide product0 = static_cast<Wide>(kMultiplier0) * counter[0];
    const Wide product1 = static_cast<Wide>(kMultiplier1) * counter[2];
    counter = {static_cast<std::uint64_t>(product1 >> 64) ^ counter[1] ^ key[0],
               static_cast<std::uint64_t>(product1),
               static_cast<std::uint64_t>(product0 >> 64) ^ counter[3] ^ key[1],
               static_cast<std::uint64_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

Philox::Key key_of(const msgpack::sbuffer& packed) {
  const auto digest = sha256({packed.data(), packed.size()});
  Philox::Key key{};
  for (std::size_t i = 0; i < 16; ++i) key[i / 8] |= static_cast<std::uint64_t>(digest[i]) << (8 * (i % 8));
  return key;
}

void pack_text(msgpack::packer<msgpack::sbuffer>& packer, std::string_view text) {
  packer.pack_str(static_cast<std::uint32_t>(text.size()));
  packer.pack_str_body(text.data(), static_cast<std::uint32_t>(text.size()));
}

}  // namespace

std::uint64_t Philox::next() {
  if (used_ == 4) {
    for (auto& word : counter_) {
      if (++word != 0) break;
    }
    block_ = philox_block(counter_, key_);
    used_ = 0;
  }
  return block_[used_++];
}

std::uint64_t Philox::below(std::uint64_t bound) {
  CHECK(bound >= 1);
  const std::uint64_t limit = ~std::uint64_t{0} - ~std::uint64_t{0} % bound;
  for (;;) {
    const std::uint64_t draw = next();
    if (draw < limit) return draw % bound;
  }
}

Philox::Key call_key(std::int64_t run_seed, std::string_view plugin, std::int64_t rank, std::string_view hook,
                     std::int64_t step, std::int64_t micro) {
  msgpack::sbuffer buffer;
  msgpack::packer packer(buffer);
  packer.pack_array(6);
  packer.pack(run_seed);
  pack_text(packer, plugin);
  packer.pack(rank);
  pack_text(packer, hook);
  packer.pack(step);
  packer.pack(micro);
  return key_of(buffer);
}

Philox::Key sample_key(std::int64_t run_seed, std::string_view plugin, std::string_view hook,
                       std::int64_t epoch, std::int64_t sample) {
  msgpack::sbuffer buffer;
  msgpack::packer packer(buffer);
  packer.pack_array(5);
  packer.pack(run_seed);
  pack_text(packer, plugin);
  pack_text(packer, hook);
  packer.pack(epoch);
  packer.pack(sample);
  return key_of(buffer);
}

Philox::Key stream_key(std::int64_t run_seed, std::string_view name, std::span<const std::int64_t> numbers) {
  msgpack::sbuffer buffer;
  msgpack::packer packer(buffer);
  packer.pack_array(static_cast<std::uint32_t>(2 + numbers.size()));
  packer.pack(run_seed);
  pack_text(packer, name);
  for (const std::int64_t number : numbers) packer.pack(number);
  return key_of(buffer);
}

}  // namespace bulkhead
