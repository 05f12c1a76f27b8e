// How parameters are divided among ranks: all in one buffer, of which every rank
// has an equal part.
//
// Parameters begin on multiples of 64 numbers, and so do parts: a kernel that goes
// through vectors treats a number as it would in the whole parameter, so the bits
// are the same.  The compute thread.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "communicator.h"
#include "protocol/result.h"

namespace bulkhead {

struct RankPlace {
  std::int64_t rank = 0;
  std::int64_t ranks = 1;  // 1: nothing is divided
};

// Numbers begin … begin + count − 1 of a parameter; count may be 0.
struct Share {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

class Shares {
 public:
  // `parameters`: float32, dense, on one device.  Their storage becomes the
  // buffer's, with the numbers they have.
  Shares(const std::vector<at::Tensor>& parameters, const RankPlace& place);

  // This rank's, of each parameter in turn.
  const std::vector<Share>& own() const { return own_; }

  // Every rank's part of the parameters goes to all.  Collective.
  Status exchange(Communicator& communicator);

  // A buffer of the same layout, of zeros, and what in it is the i-th parameter's.
  at::Tensor empty_buffer() const;
  at::Tensor view(const at::Tensor& buffer, std::size_t i) const;

  // exchange() of such a buffer.
  Status exchange(at::Tensor& buffer, Communicator& communicator) const;

 private:
  RankPlace place_;
  std::int64_t part_ = 0;  // numbers of a rank
  std::vector<std::int64_t> begins_;
  std::vector<std::vector<std::int64_t>> shapes_;
  std::vector<Share> own_;
  at::Tensor buffer_;
};

}  // namespace bulkhead
