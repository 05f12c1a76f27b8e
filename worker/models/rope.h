// The angles of a rotary position embedding (Su et al. 2021), and how they are
// stretched for longer contexts, as transformers' modeling_rope_utils does it.
//
// Pure.  Any thread.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "protocol/result.h"
#include "protocol/run_config.h"

namespace bulkhead {

struct RopeTables {
  at::Tensor cos, sin;  // float32 [length,dim/2], CPU
};

// Position p turns point i by p · theta^(−2i/dim), in float32 as there.
// `scaling`: none ({} or null), or of rope_type (or type) default, linear (factor)
// or llama3 (factor, low_freq_factor, high_freq_factor,
// original_max_position_embeddings).  Another type or a key that is missing is a
// sentence that begins with `where`.
Result<RopeTables> rope_tables(std::int64_t dim, std::int64_t length, double theta, const Value& scaling,
                               const std::string& where);

}  // namespace bulkhead
