// Pictures brought to the one size that a model takes.
//
// Every number is a fixed function of the input: the same on each machine and
// in each run.  Pure; any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "data/picture.h"

namespace bulkhead {

// The centred square of the picture (its shorter side long; an odd rest is cut
// from the right or the bottom), scaled to side × side × 3 bytes.  Shrinking
// averages the area that falls on each pixel (PIL's BOX), growing is bilinear
// between pixel centres; equal size is a copy.
std::vector<std::uint8_t> square_of(const Picture& picture, std::int64_t side);

}  // namespace bulkhead
