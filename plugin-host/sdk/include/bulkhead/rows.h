// Token samples of a data set of rows: what encode gives and collate gets.
// Values, and views that are valid inside the hook only, on its thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "bulkhead/abi.h"
#include "bulkhead/tensor_view.h"

namespace bulkhead {
inline namespace sdk_v5 {

// A row as tokens.  Ids are 0 or more; a label is an id or −100, which is not
// learned.  The model's own shift by one is not the plugin's business.
struct Encoded {
  std::vector<std::int64_t> input_ids;
  std::vector<std::int64_t> labels;  // as many; none: all ids are learned

  // Throws std::invalid_argument when the two differ in length.
  void hand_over(const abi::Host& host) const {
    if (!labels.empty() && labels.size() != input_ids.size()) {
      throw std::invalid_argument("encode gave " + std::to_string(input_ids.size()) + " input_ids and " +
                                  std::to_string(labels.size()) + " labels; there must be as many");
    }
    const std::vector<std::int64_t>& learned = labels.empty() ? input_ids : labels;
    host.encoded(host.self, input_ids.data(), learned.data(), input_ids.size());
  }
};

// A sample as the model learns it: labels[i] is what follows input_ids[i], −100
// where that is not learned.
struct TokenSample {
  TensorView<const std::int64_t> input_ids;  // [T]
  TensorView<const std::int64_t> labels;     // [T]

  // Made by the host: two tensors a sample.
  static std::vector<TokenSample> of(const abi::Tensor* tensors, std::size_t count) {
    std::vector<TokenSample> samples;
    for (std::size_t i = 0; i + 1 < count; i += 2)
      samples.push_back({view(tensors[i]), view(tensors[i + 1])});
    return samples;
  }

 private:
  TokenSample(TensorView<const std::int64_t> ids, TensorView<const std::int64_t> learned)
      : input_ids(ids), labels(learned) {}
  static TensorView<const std::int64_t> view(const abi::Tensor& tensor) {
    return {static_cast<const std::int64_t*>(tensor.data), {tensor.shape[0]}, {1}};
  }
};

}  // namespace sdk_v5
}  // namespace bulkhead
