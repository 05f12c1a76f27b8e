// What a plugin asks for in the middle of a call, and the record by which a
// retry and a replay get the same answers.
#include <utility>

#include "plugin_stream.h"

namespace bulkhead {
namespace {

// Parameters stand still while it runs: its reply is collected before the next
// optimizer step, and it was sent after the last.
bool sees_weights(const HookInfo& hook) {
  if (hook.kind != HookKind::kNotify) return false;
  if (hook.pace == HookPace::kWaited) return true;
  for (const char* name :
       {"on_step_start", "on_optimizer_step_end", "on_step_end", "should_stop", "on_log"}) {
    if (hook.name == name) return true;
  }
  return false;
}

std::string refusal_of(const Ask& ask, const HookInfo& hook, const PluginRoute& route) {
  const std::string where = " cannot be asked for in " + std::string(hook.name);
  if (!route.traits.steers) return ask.what + " cannot be asked for by a plugin that says `steers = False`";
  if (ask.what == "weights") return sees_weights(hook) ? "" : ask.what + where;
  if (ask.what != "all_gather") return "there is nothing called \"" + ask.what + "\" to ask for";
  if (route.config.scope == "node") return "all_gather is for the scopes rank and job, not for node";
  return hook.kind == HookKind::kNotify ? "" : ask.what + where;
}

}  // namespace

void PluginStream::on_ask(Ask ask, TimePoint now) {
  if (faulted_ || host_ == Host::kAbsent || host_ == Host::kGivenUp) return;
  if (flights_.empty() || flights_.front().seq != ask.seq) {
    return fault("garbage", "it asked for " + ask.what + " outside of its call", now);
  }
  Flight& flight = flights_.front();
  Entry* entry = find(ask.seq);
  if (entry == nullptr) return refuse_ask(ask, ask.what + " cannot be asked for in " + flight.hook);
  const auto known = static_cast<std::int64_t>(entry->answers.size());
  if (ask.number < 0 || ask.number > known) {
    return fault("garbage", "its question " + std::to_string(ask.number) + " is not the next", now);
  }
  if (ask.number < known) return effects_.answer(entry->answers[static_cast<std::size_t>(ask.number)]);
  if (flight.replay) {
    return refuse_ask(ask, "this call did not ask for " + ask.what +
                               " before the restart: the plugin does not do the same again");
  }
  if (std::string refused = refusal_of(ask, *entry->hook, route_); !refused.empty()) {
    return refuse_ask(ask, std::move(refused));
  }
  flight.asking = true;
  if (!entry->asking.empty()) return;  // the incarnation before had asked: it is on its way
  entry->asking = ask.what;
  effects_.ask({ask.seq, entry->position, ask.number, std::move(ask.what), entry->call.hook,
                entry->call.context.global_step, std::move(ask.batch)});
}

void PluginStream::answered(Seq seq, std::int64_t number, std::optional<Failure> failure, Batch batch,
                            TimePoint now) {
  Entry* entry = find(seq);
  const bool expected = entry != nullptr && !entry->asking.empty() &&
                        number == static_cast<std::int64_t>(entry->answers.size());
  if (!expected) return;
  entry->saw_weights |= std::exchange(entry->asking, {}) == "weights" && !failure;
  Answer answer;
  answer.seq = seq;
  answer.number = number;
  answer.failure = std::move(failure);
  answer.batch = std::move(batch);
  entry->answers.push_back(answer);
  if (flights_.empty() || flights_.front().seq != seq || !flights_.front().asking) return;
  flights_.front().asking = false;
  flights_.front().begun = now;
  effects_.answer(std::move(answer));
}

void PluginStream::refuse_ask(const Ask& ask, std::string sentence) {
  Answer answer;
  answer.seq = ask.seq;
  answer.number = ask.number;
  answer.failure = Failure{"RuntimeError", std::move(sentence), {}};
  effects_.answer(std::move(answer));
}

PluginStream::Standing PluginStream::standing(std::int64_t position) const {
  if (position > positions_) return Standing::kAhead;
  for (const Entry& entry : entries_) {
    if (entry.position != position) continue;
    return entry.state == State::kQueued ? Standing::kUnderWay : Standing::kOver;
  }
  return Standing::kOver;
}

}  // namespace bulkhead
