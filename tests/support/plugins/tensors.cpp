// Inverts every bit of every tensor of a batch (a bool becomes the other one),
// in place or into new tensors: what a test can check without knowing types.
// Of a very large one ("ends") only the first and the last byte, in place.
// "turned" gives back the transpose instead, "unseen" inverts in place what was
// not looked at before.
#include <cstddef>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>

#include "bulkhead/plugin.h"

namespace tests {

class Tensors : public bulkhead::Plugin {
 public:
  explicit Tensors(const bulkhead::Options& with) : how_(with.get<std::string>("how", "mutable")) {}

  void transform_train_batch(bulkhead::Batch& batch, bulkhead::Context&) override {
    for (const std::string& name : batch.names()) invert(batch, name);
  }

 private:
  void invert(bulkhead::Batch& batch, const std::string& name) {
    using bulkhead::DType;
    switch (batch.dtype(name)) {
      case DType::kBool:
        return invert<bool>(batch, name);
      case DType::kUInt8:
        return invert<std::uint8_t>(batch, name);
      case DType::kInt8:
        return invert<std::int8_t>(batch, name);
      case DType::kInt16:
        return invert<std::int16_t>(batch, name);
      case DType::kInt32:
        return invert<std::int32_t>(batch, name);
      case DType::kInt64:
        return invert<std::int64_t>(batch, name);
      case DType::kFloat16:
        return invert<bulkhead::Half>(batch, name);
      case DType::kBFloat16:
        return invert<bulkhead::BFloat16>(batch, name);
      case DType::kFloat32:
        return invert<float>(batch, name);
      case DType::kFloat64:
        return invert<double>(batch, name);
    }
  }

  template <class T>
  void invert(bulkhead::Batch& batch, const std::string& name) {
    if (how_ == "turned") return batch.set(name, batch.view<T>(name).permuted({1, 0}));
    if (how_ == "unseen") {
      const auto bytes = std::as_writable_bytes(batch.mutable_view<T>(name).flat());
      for (std::byte& byte : bytes) byte = ~byte;
      return;
    }
    const auto from = batch.view<T>(name).flat();
    const bulkhead::Shape shape = batch.shape(name);
    const auto to = how_ == "new" ? batch.add<T>(name, shape).flat() : batch.mutable_view<T>(name).flat();
    const auto* read = reinterpret_cast<const unsigned char*>(from.data());
    auto* written = reinterpret_cast<unsigned char*>(to.data());
    const unsigned char mask = std::is_same_v<T, bool> ? 1 : 0xFF;
    const std::size_t step = how_ == "ends" ? to.size_bytes() - 1 : 1;
    for (std::size_t i = 0; i < to.size_bytes(); i += step) written[i] = read[i] ^ mask;
  }

  std::string how_;
};

}  // namespace tests

BULKHEAD_PLUGIN(tests::Tensors)
