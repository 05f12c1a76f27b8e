// What becomes of a reply: outputs checked, calls settled, snapshots accepted,
// the journal trimmed; and of a plugin that is given up.
#include <algorithm>
#include <utility>

#include "output_check.h"
#include "plugin_stream.h"

namespace bulkhead {
namespace {

// Its input is worth keeping when the plugin fails on it.
bool has_input(const HookInfo& hook) { return hook.moves_batch() || hook.kind == HookKind::kRows; }

// Seconds from which on a call is worth an event (DESIGN §6.6).
double slow_from(const HookInfo& hook) {
  if (hook.name.starts_with("on_train_")) return 20;
  return hook.pace == HookPace::kStep ? 0.5 : 5;
}

}  // namespace

void PluginStream::entry_reply(Entry& entry, Reply reply, std::vector<Note> notes) {
  entry.outcome = Outcome{};
  entry.outcome.notes = std::move(notes);
  if (reply.seconds >= slow_from(*entry.hook)) {
    effects_.event(
        "slow_hook",
        {{"hook", reply.hook}, {"step", entry.call.context.global_step}, {"seconds", reply.seconds}});
  }
  if (reply.failure) {
    const std::string said = reply.failure->type + ": " + reply.failure->message;
    ++report_.errors;
    effects_.event("error", {{"hook", reply.hook},
                             {"step", entry.call.context.global_step},
                             {"reason", said},
                             {"traceback", reply.failure->traceback}});
    if (has_input(*entry.hook)) keep_input(entry, reply.hook + " raised " + said);
    entry.outcome.fatal = reply.fatal;
    settle_failed(entry, Outcome::Kind::kError,
                  reply.fatal ? route_.config.name + ": " + said : reply.hook + " raised " + said);
    return trim();
  }
  entry.state = State::kReplied;
  entry.outcome.control = reply.control;
  entry.outcome.saw_weights = entry.saw_weights;
  if (entry.hook->kind == HookKind::kRows) {
    entry.outcome.batch = std::move(reply.batch);
  } else if (entry.hook->pace == HookPace::kWaited) {
    entry.outcome.weights = std::move(reply.batch);
  }
  if (entry.hook->moves_batch() && !transform_reply(entry, reply)) return trim();
  const Seq seq = entry.call.seq;
  const bool snapshot = reply.hook == "state_dict";
  if (snapshot && reply.has_state) {
    entry.outcome.state = reply.state;
    snapshot_ = std::move(reply.state);
  }
  effects_.over(entry.position, false);
  if (entry.own) entry.state = State::kConsumed;
  if (entry.wanted && !entry.own) deliver(entry);
  if (snapshot && reply.has_state && stateful_) accept_snapshot(seq);
  trim();
}

bool PluginStream::transform_reply(Entry& entry, Reply& reply) {
  const bool made = entry.hook->kind == HookKind::kCollate;  // nothing of the samples is kept
  Status pieces = ok_status();
  if (entry.hook->kind == HookKind::kTransform) {
    pieces = add_pieces(entry.call.batch, reply.pieces, reply.batch);
  } else if (!reply.pieces.empty()) {
    pieces = Error{ErrorCode::kMalformed, reply.hook + " has no pieces to give"};
  }
  Result<Batch> output = assemble_output(made ? Batch{} : entry.call.batch, reply.batch, reply.kept);
  std::string refused;
  if (!pieces.ok()) {
    refused = pieces.error().message;
  } else if (!output.ok()) {
    refused = output.error().message;
  } else if (entry.hook->kind == HookKind::kSample) {
    refused = check_samples(entry.call.batch, *output);
  } else if (made) {
    refused = check_made(*output);
  } else {
    refused = good_outputs_[reply.hook].check(entry.call.batch, *output, options_.lengths_vary);
  }
  if (refused.empty() && route_.config.check_finite) refused = check_finite(*output);
  if (!refused.empty()) {
    ++report_.errors;
    effects_.event("error",
                   {{"hook", reply.hook}, {"step", entry.call.context.global_step}, {"reason", refused}});
    keep_input(entry, refused);
    settle_failed(entry, Outcome::Kind::kError, refused);
    return false;
  }
  entry.outcome.batch = std::move(*output);
  if (entry.hook->kind == HookKind::kTransform) {
    good_outputs_[reply.hook].accept(entry.call.batch, entry.outcome.batch, options_.lengths_vary);
  }
  if (entry.again) entry.call.batch.clear();  // the journal keeps how to make it, not the memory
  return true;
}

// As it was before any host had it.
Batch PluginStream::input_of(const Entry& entry) {
  return entry.again && entry.sent_before ? entry.again() : entry.call.batch;
}

void PluginStream::keep_input(const Entry& entry, const std::string& reason) {
  if (!entry.again) return effects_.dead_letter(entry.call, reason);
  Call call = entry.call;
  call.batch = input_of(entry);
  effects_.dead_letter(call, reason);
}

void PluginStream::settle_failed(Entry& entry, Outcome::Kind kind, std::string reason) {
  entry.state = State::kReplied;
  entry.outcome.kind = kind;
  entry.outcome.reason = std::move(reason);
  if (entry.hook->moves_batch()) {
    entry.outcome.batch = input_of(entry);
    if (kind != Outcome::Kind::kGivenUp) {
      entry.outcome.skip = route_.config.on_poison == "skip";
      entry.outcome.abort = route_.config.on_poison == "abort";
    }
  }
  effects_.over(entry.position, kind != Outcome::Kind::kError);
  if (kind == Outcome::Kind::kPoison) {
    if (has_input(*entry.hook)) keep_input(entry, entry.outcome.reason);
    effects_.event("poison", {{"hook", entry.call.hook},
                              {"step", entry.call.context.global_step},
                              {"reason", entry.outcome.reason}});
  }
  if (entry.own) {
    entry.state = State::kConsumed;
  } else if (entry.wanted) {
    deliver(entry);
  }
}

void PluginStream::deliver(Entry& entry) {
  entry.state = State::kConsumed;
  if (!observer_) effects_.settle(entry.call.seq, std::move(entry.outcome));
  entry.outcome = Outcome{};
}

// Everything before an arrived snapshot is vouched for by it.
void PluginStream::accept_snapshot(Seq seq) {
  for (Entry& entry : entries_) {
    if (entry.call.seq > seq) break;
    entry.accepted = true;
  }
}

// Drops what will never be sent again: all that is consumed, for a stateless
// plugin; what a snapshot has accepted besides, for one with state.
void PluginStream::trim() {
  while (!entries_.empty()) {
    const Entry& front = entries_.front();
    const bool over = front.state == State::kConsumed && (!stateful_ || front.accepted || front.buried);
    if (!over) return;
    entries_.pop_front();
    if (cursor_ > 0) --cursor_;
  }
}

// The journal is bounded by a snapshot at a place that depends on the calls
// alone.
void PluginStream::maybe_snapshot(TimePoint now) {
  if (calls_since_snapshot_ < options_.journal_calls && bytes_since_snapshot_ < options_.journal_bytes)
    return;
  snapshot(now);
}

void PluginStream::snapshot(TimePoint now) {
  if (!stateful_ || retired_ || host_ == Host::kGivenUp) return;
  calls_since_snapshot_ = 0;
  bytes_since_snapshot_ = 0;
  Entry entry;
  entry.hook = find_hook("state_dict");
  entry.own = true;
  entry.call.hook = entry.hook->name;
  entry.call.context = last_context_;
  entry.call.deadline_ms = std::chrono::ceil<std::chrono::milliseconds>(deadline_of(*entry.hook)).count();
  push(std::move(entry));
  pump(now);
}

void PluginStream::give_up(const std::string& reason) {
  host_ = Host::kGivenUp;
  give_up_reason_ = reason;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    if (entry.state == State::kQueued && !entry.awaits_input)
      settle_failed(entry, Outcome::Kind::kGivenUp, reason);
  }
  stateful_ = false;
  trim();
}

}  // namespace bulkhead
