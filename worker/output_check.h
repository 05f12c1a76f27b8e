// What comes from a plugin, before the rank uses it: batches and texts.
// Pure functions on host memory; any thread.
#pragma once

#include <string>
#include <vector>

#include "protocol/result.h"
#include "protocol/tensor.h"

namespace bulkhead {

// Puts what a reply says to be pieces of the input behind `changed`; they share
// the input's memory.  Malformed where a piece is not inside it, or a name is
// there twice.
Status add_pieces(const Batch& input, const std::vector<Piece>& pieces, Batch& changed);

// The output batch: input tensors named in `kept` and those in `changed`, in
// the input's order, new names last.  A kept name that the input lacks, or a
// name twice, is Malformed.
Result<Batch> assemble_output(const Batch& input, const Batch& changed, const std::vector<std::string>& kept);

// Empty, or one sentence on how `output` differs from `wanted`: by names and
// types, and by shapes too where `with_shapes`.
std::string check_schema(const Batch& wanted, const Batch& output, bool with_shapes);

// The same for what sample hooks gave back: `images` in the input's form, the
// texts `captions` as many as before, each at most 64 KiB; `paths` and `sample`
// as they were.
std::string check_samples(const Batch& input, const Batch& output);

// The same for the batch that collate made: `input_ids` and `labels`, int64 with
// two dimensions and of one shape, and no tensor that would make it samples.
std::string check_made(const Batch& output);

// Empty, or one sentence naming the tensor that holds a NaN or an infinity.
std::string check_finite(const Batch& output);

// The text as it may go into messages and files: valid UTF-8 (what is not is
// replaced), at most 64 KiB.  A host should have seen to it; the rank does not
// rely on that.
std::string readable(const std::string& text);

// What the good outputs of one transform were like (protocol/README.md, rule 10).
class GoodOutputs {
 public:
  // Empty, or one sentence: before the first good one names and types are the
  // input's, then those of the last; and for an input whose shapes it has had
  // before, the shapes that it gave then, unless `lengths_vary`.
  std::string check(const Batch& input, const Batch& output, bool lengths_vary) const;
  void accept(const Batch& input, const Batch& output, bool lengths_vary);

 private:
  struct Pair {
    Batch input;  // without bytes, as the output
    Batch output;
  };
  const Pair* like(const Batch& input) const;

  std::vector<Pair> pairs_;  // by the input's shapes, the newest last
};

}  // namespace bulkhead
