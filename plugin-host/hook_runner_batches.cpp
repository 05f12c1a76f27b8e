// HookRunner's calls that are not one call of the plugin with the batch as it
// came: each sample, each row, rows as columns, samples to be made a batch.
#include <utility>

#include "hook_runner.h"
#include "protocol/number_lists.h"
#include "protocol/rng.h"
#include "protocol/texts.h"
#include "row_batch.h"
#include "sample_batch.h"

namespace bulkhead {
namespace {

// [N] of bool.
Tensor verdicts_of(const std::vector<bool>& verdicts) {
  std::string bytes(verdicts.size(), '\0');
  for (std::size_t i = 0; i < verdicts.size(); ++i) bytes[i] = verdicts[i] ? '\1' : '\0';
  return {"keep", DType::kBool, {static_cast<std::int64_t>(verdicts.size())}, Blob::of(std::move(bytes))};
}

void append(Batch& batch, Batch more) {
  for (Tensor& tensor : more) batch.push_back(std::move(tensor));
}

}  // namespace

Reply HookRunner::failed(const Call& call, const CallLine& line, std::string type,
                         std::string sentence) const {
  Reply failure = HookAnswer(about(call), line).take();
  failure.failure = Failure{std::move(type), std::move(sentence), {}};
  return failure;
}

Reply HookRunner::run_samples(const Call& call, const AbiFacts& facts, const CallLine& line) {
  Reply whole;
  whole.generation = generation_;
  whole.seq = call.seq;
  Result<SampleBatch> batch = SampleBatch::of(call);
  if (!batch) return failed(call, line, "ValueError", batch.error().message);
  const AbiCall common(call, {});
  for (std::size_t i = 0; i < batch->size(); ++i) {
    const Philox::Key key =
        sample_key(facts_.run_seed, facts_.plugin, call.hook, call.context.epoch, batch->sample(i));
    const abi::Call one = batch->call_of(i, common.get(), key);
    HookAnswer answer(about(call), line);
    library_.table().call(plugin_, &facts.get(), &one, &answer.host());
    Reply reply = answer.take();
    if (reply.failure) return reply;
    whole.control.merge(reply.control);
    if (std::string objection = batch->take(i, reply.batch, answer.caption()); !objection.empty()) {
      return failed(call, line, "std::length_error", std::move(objection));
    }
  }
  batch->give(whole);
  return whole;
}

// The chunk's number takes the place of a sample's in the seed.
Reply HookRunner::run_preprocess(const Call& call, const AbiFacts& facts, const CallLine& line) {
  const Result<RowBatch> batch = RowBatch::of(call);
  if (!batch) return failed(call, line, "ValueError", batch.error().message);
  const Value columns = batch->columns();
  const AbiValue plain(columns);
  const AbiCall common(call, sample_key(facts_.run_seed, facts_.plugin, call.hook, call.context.epoch,
                                        call.context.micro_batch));
  abi::Call with_rows = common.get();
  with_rows.rows = &plain.root();
  HookAnswer answer(about(call), line);
  library_.table().call(plugin_, &facts.get(), &with_rows, &answer.host());
  Reply reply = answer.take();
  if (reply.failure) return reply;
  const Result<std::vector<std::string>> rows = rows_of(answer.columns().value_or(Value()));
  if (!rows) return failed(call, line, "std::invalid_argument", rows.error().message);
  reply.batch = pack_texts("rows", *rows);
  return reply;
}

Reply HookRunner::run_rows(const Call& call, const AbiFacts& facts, const CallLine& line) {
  const Result<RowBatch> batch = RowBatch::of(call);
  if (!batch) return failed(call, line, "ValueError", batch.error().message);
  Reply whole;
  whole.generation = generation_;
  whole.seq = call.seq;
  const bool keeps = call.hook == "keep";
  std::vector<bool> verdicts;
  NumberLists ids;
  NumberLists labels;
  const AbiCall common(call, {});
  for (std::size_t i = 0; i < batch->size(); ++i) {
    const AbiValue plain(batch->row(i));
    abi::Call one = common.get();
    const Philox::Key key =
        sample_key(facts_.run_seed, facts_.plugin, call.hook, call.context.epoch, batch->number(i));
    one.rng_key[0] = key[0];
    one.rng_key[1] = key[1];
    one.sample = batch->number(i);
    one.tensor_count = 0;
    one.rows = &plain.root();
    HookAnswer answer(about(call), line);
    library_.table().call(plugin_, &facts.get(), &one, &answer.host());
    Reply reply = answer.take();
    if (reply.failure) return reply;
    whole.control.merge(reply.control);
    verdicts.push_back(answer.verdict().value_or(true));
    const HookAnswer::Tokens tokens = answer.tokens().value_or(HookAnswer::Tokens{});
    ids.add(tokens.input_ids);
    labels.add(tokens.labels);
  }
  if (keeps) {
    whole.batch = {verdicts_of(verdicts)};
  } else {
    append(whole.batch, ids.pack("input_ids"));
    append(whole.batch, labels.pack("labels"));
  }
  return whole;
}

Reply HookRunner::run_collate(const Call& call, const AbiFacts& facts, const CallLine& line) {
  const Result<TokenBatch> samples = TokenBatch::of(call);
  if (!samples) return failed(call, line, "ValueError", samples.error().message);
  const CallContext& context = call.context;
  const AbiCall common(call, call_key(facts_.run_seed, facts_.plugin, call.seed_rank, call.hook,
                                      context.global_step, context.micro_batch));
  abi::Call with_samples = common.get();
  with_samples.tensor_count = samples->tensors().size();
  with_samples.tensors = samples->tensors().data();
  HookAnswer answer(about(call), line);
  library_.table().call(plugin_, &facts.get(), &with_samples, &answer.host());
  return answer.take();
}

}  // namespace bulkhead
