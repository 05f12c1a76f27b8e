// What a hook is told and may ask for: the fields are those of `ctx` in a
// Python plugin, by the same names.
//
// A Context is valid inside its hook only, on the thread that called it.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bulkhead/abi.h"
#include "bulkhead/batch.h"
#include "bulkhead/control.h"
#include "bulkhead/errors.h"
#include "bulkhead/facts.h"
#include "bulkhead/rng.h"

namespace bulkhead {
inline namespace sdk_v5 {

struct Context : Facts {
  std::int64_t epoch = 0;
  // In step hooks and batches the 0-based step they belong to; in epoch,
  // validation, save and train hooks the number of steps completed.
  std::int64_t global_step = 0;
  std::int64_t step_in_epoch = 0;
  std::int64_t epoch_length = 0;  // steps
  std::int64_t max_steps = 0;     // 0 = by epochs alone
  std::int64_t max_epochs = 0;    // 0 = by steps alone
  std::int64_t micro_batch = 0;   // within the step; in a validation or test the batch's number
  double lr = 0;
  double grad_norm = 0;                   // total, before clipping
  std::map<std::string, double> metrics;  // "loss", …; what there is depends on the hook
  std::optional<double> best_metric;      // lowest validation loss so far
  std::string call_id;                    // the same when this call is sent again
  bool replaying = false;                 // control, logs and outputs will be dropped
  std::string exception;                  // on_exception: why the run ends
  std::optional<std::int64_t> sample;     // sample hooks, keep, encode: its number in the data set
  std::string path;                       // sample hooks: the image's file
  // Seeded from (run seed, plugin, rank, hook, step, micro-batch) before each
  // call, so that a retry draws the same numbers; in sample hooks from (run seed,
  // plugin, hook, epoch, sample) before each sample.  The only generator that is
  // seeded: std::rand and std::random_device are not reproducible.
  Philox rng;
  Control control;

  // A line for the run's log.
  void log(std::string_view text) const { host_->note(host_->self, abi::text(text), nullptr, 0); }

  // Values for metrics.jsonl, under the plugin's name.
  void log_metrics(const std::map<std::string, double>& values) const {
    const auto list = list_of(values);
    host_->note(host_->self, {}, list.data(), list.size());
  }

  // The call is alive: its deadline begins anew.
  void progress(const std::map<std::string, double>& detail = {}) const {
    const auto list = list_of(detail);
    host_->progress(host_->self, list.data(), list.size());
  }

  // Changes a setting of the run, on all ranks at the same step: `grad_accum`
  // (micro-batches of a step, ≥ 1), `log_every`, `save_every`, `validate_every`
  // (steps, ≥ 0) or `lr` (≥ 0, of every later step whatever the schedule says;
  // std::nullopt gives it back to the schedule).
  //
  // Takes effect after the step at whose end this hook's control does;
  // `grad_accum` as many steps later as batches are prefetched, except in
  // on_epoch_start, where it is at once.  Of several plugins the last in the run
  // file wins, within a plugin the lowest rank, on a rank the last said.  Throws
  // std::invalid_argument for any other name or value.
  void set(std::string_view name, std::optional<double> value) {
    const abi::Text why = host_->set(host_->self, abi::text(name), value.has_value(), value.value_or(0));
    if (why.size > 0) throw std::invalid_argument(std::string(abi::view(why)));
  }

  // The bytes of every rank, in rank order: all ranks ask at the same place and
  // wait for one another.  std::nullopt stands for a rank on which the plugin was
  // given up.  A call that is made again gets what it got before.  In scope job
  // the list has one entry.
  //
  // Throws std::logic_error in hooks that not all ranks call together
  // (transforms, state, setup, configure, on_exception), in scope node and for
  // `steers = false`; AskFailed when another rank returned without asking.
  std::vector<std::optional<std::string>> all_gather(std::string_view bytes) {
    demand("all_gather");
    if (scope == "job") return {std::string(bytes)};
    const abi::Answer answer = ask("all_gather", bytes);
    std::vector<std::optional<std::string>> parts(static_cast<std::size_t>(world_size));
    for (std::size_t i = 0; i < answer.tensor_count; ++i) {
      const abi::Tensor& part = answer.tensors[i];
      const std::size_t from = rank_named(abi::view(part.name));
      if (from >= parts.size() || part.dims != 1)
        throw AskFailed("the answer to ctx.all_gather names no rank");
      parts[from].emplace(static_cast<const char*>(part.data), static_cast<std::size_t>(part.shape[0]));
    }
    return parts;
  }

  // Every parameter by name, in the model's order, as trained (float32): a copy,
  // asked for once a call and valid until the hook returns.  What is written
  // through mutable_view() is not yet given back: see load_weights().
  //
  // Only in hooks during which parameters stand still: on_step_start,
  // on_optimizer_step_end, on_step_end, should_stop, on_log and all that the ranks
  // wait for.  Throws std::logic_error elsewhere and for `steers = false`;
  // AskFailed when the rank cannot answer.
  Batch& weights() {
    demand("weights");
    if (!weights_) {
      const abi::Answer answer = ask("weights", {});
      weights_ = std::make_unique<Batch>(answer.tensors, answer.tensor_count);
      shown_ = {answer.tensors, answer.tensors + answer.tensor_count};
    }
    return *weights_;
  }

  // Replaces parameters by name, on all ranks directly after this hook: those of
  // `changed` that were written to (mutable_view) or added, with the types and
  // shapes of weights().
  //
  //   bulkhead::Batch& weights = ctx.weights();
  //   const auto bias = weights.mutable_view<float>("head.bias").flat();
  //   for (float& value : bias) value = 0;
  //   ctx.load_weights(weights);
  //
  // Of several plugins the last in the run file wins, within a plugin the lowest
  // rank; the optimizer forgets its moments of the parameters named.  Throws
  // std::logic_error in a hook that the ranks do not wait for and for
  // `steers = false`; std::invalid_argument for a parameter that weights() of this
  // call did not have, or had with another type or shape.  Nothing is given then.
  void load_weights(const Batch& changed) {
    demand("load_weights");
    if (weights_) {
      for (const std::string& name : changed.changed_names()) check_parameter(changed, name);
    }
    changed.hand_over_changed(*host_);
  }

  // Made by the host; `host` must outlive it.
  Context(const abi::Facts& facts, const abi::Call& call, const abi::Host& host)
      : Facts(facts),
        epoch(call.epoch),
        global_step(call.global_step),
        step_in_epoch(call.step_in_epoch),
        epoch_length(call.epoch_length),
        max_steps(call.max_steps),
        max_epochs(call.max_epochs),
        micro_batch(call.micro_batch),
        lr(call.lr),
        grad_norm(call.grad_norm),
        call_id(abi::view(call.call_id)),
        replaying(call.replaying != 0),
        exception(abi::view(call.exception)),
        path(abi::view(call.path)),
        rng({call.rng_key[0], call.rng_key[1]}),
        host_(&host) {
    for (std::size_t i = 0; i < call.metric_count; ++i) {
      metrics.emplace(abi::view(call.metrics[i].name), call.metrics[i].value);
    }
    if (call.has_best_metric != 0) best_metric = call.best_metric;
    if (call.sample >= 0) sample = call.sample;
  }

 private:
  static std::vector<abi::Metric> list_of(const std::map<std::string, double>& values) {
    std::vector<abi::Metric> list;
    list.reserve(values.size());
    for (const auto& [name, value] : values) list.push_back({abi::text(name), value});
    return list;
  }

  // Throws why this hook may not do that.
  void demand(std::string_view what) const {
    const abi::Text why = host_->objection(host_->self, abi::text(what));
    if (why.size > 0) throw std::logic_error(std::string(abi::view(why)));
  }

  abi::Answer ask(std::string_view what, std::string_view bytes) const {
    const abi::Answer answer = host_->ask(host_->self, abi::text(what), abi::text(bytes));
    if (answer.kind == abi::Answer::Kind::kAborted) throw entry::CallAborted{};
    if (answer.kind == abi::Answer::Kind::kFailed) throw AskFailed(std::string(abi::view(answer.message)));
    return answer;
  }

  // SIZE_MAX for what is no number.
  static std::size_t rank_named(std::string_view name) {
    std::size_t number = 0;
    const auto [stopped, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    return error == std::errc{} && stopped == name.data() + name.size() ? number : SIZE_MAX;
  }

  void check_parameter(const Batch& changed, const std::string& name) const {
    const auto known =
        std::ranges::find(shown_, name, [](const abi::Tensor& one) { return abi::view(one.name); });
    if (known == shown_.end())
      throw std::invalid_argument("ctx.load_weights: the model has no \"" + name + "\"");
    const Shape wanted(known->shape, known->shape + known->dims);
    if (known->dtype == changed.dtype(name) && wanted == changed.shape(name)) return;
    throw std::invalid_argument("ctx.load_weights: \"" + name + "\" must be " +
                                described(known->dtype, wanted) + ", not " +
                                described(changed.dtype(name), changed.shape(name)));
  }

  const abi::Host* host_;
  std::unique_ptr<Batch> weights_;
  std::vector<abi::Tensor> shown_;  // as the rank has them
};

}  // namespace sdk_v5
}  // namespace bulkhead
