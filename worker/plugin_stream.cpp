#include "plugin_stream.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "output_check.h"
#include "protocol/arena.h"
#include "protocol/result.h"

namespace bulkhead {
namespace {

constexpr std::size_t kLatencies = 4096;

double seconds_between(TimePoint from, TimePoint to) {
  return std::chrono::duration<double>(to - from).count();
}

double percentile(std::vector<float> values, double share) {
  if (values.empty()) return 0;
  const auto rank = static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + rank, values.end());
  return values[static_cast<std::size_t>(rank)];
}

std::size_t bytes_of(const Batch& batch) {
  std::size_t bytes = 0;
  for (const Tensor& tensor : batch) bytes += tensor.bytes.size;
  return bytes;
}

// Names of tensors in memory that a host may write to.
std::vector<std::string> writable_in(const Batch& batch) {
  std::vector<std::string> names;
  for (const Tensor& tensor : batch) {
    const Segment* segment = tensor.bytes.segment;
    if (segment != nullptr && segment->access() == PeerAccess::kWrite) names.push_back(tensor.name);
  }
  return names;
}

}  // namespace

PluginStream::PluginStream(PluginRoute route, StreamOptions options, Effects effects)
    : route_(std::move(route)),
      options_(options),
      effects_(std::move(effects)),
      stateful_(route_.traits.stateful && !route_.traits.stateless && route_.traits.steers),
      observer_(!route_.traits.steers),
      cautious_(route_.config.on_failure.restarts == 0) {
  report_.plugin = route_.plugin;
}

// ----- The rank's side -----

Seq PluginStream::submit(std::string_view hook, CallContext context, TimePoint now,
                         std::optional<Batch> input, std::size_t bytes, std::function<Batch()> again) {
  Entry entry;
  entry.again = std::move(again);
  entry.hook = find_hook(hook);
  CHECK(entry.hook != nullptr, std::string(hook));
  entry.call.hook = hook;
  entry.call.context = std::move(context);
  entry.call.deadline_ms = std::chrono::ceil<std::chrono::milliseconds>(deadline_of(*entry.hook)).count();
  entry.awaits_input = entry.hook->moves_batch() && !input;
  if (input) entry.call.batch = std::move(*input);
  entry.position = ++positions_;
  last_context_ = entry.call.context;
  if (observer_) {
    entry.wanted = true;
    if (host_ == Host::kGivenUp || entries_.size() >= options_.observer_queue) {
      ++report_.events_dropped;
      return last_seq_ = last_seq_.next();
    }
  }
  ++calls_since_snapshot_;
  bytes_since_snapshot_ += bytes;
  push(std::move(entry));
  const Seq seq = last_seq_;
  if (host_ == Host::kGivenUp && !entries_.back().awaits_input) {
    settle_failed(entries_.back(), Outcome::Kind::kGivenUp, give_up_reason_);
  }
  maybe_snapshot(now);
  pump(now);
  return seq;
}

void PluginStream::push(Entry entry) {
  last_seq_ = last_seq_.next();
  entry.call.seq = last_seq_;
  entries_.push_back(std::move(entry));
}

void PluginStream::supply(Seq seq, Batch input, TimePoint now) {
  Entry* entry = find(seq);
  CHECK(entry != nullptr && entry->awaits_input);
  entry->awaits_input = false;
  entry->call.batch = std::move(input);
  if (host_ == Host::kGivenUp) return settle_failed(*entry, Outcome::Kind::kGivenUp, give_up_reason_);
  pump(now);
}

void PluginStream::want(Seq seq) {
  Entry* entry = find(seq);
  CHECK(entry != nullptr && !entry->wanted, "call " + std::to_string(seq.value));
  entry->wanted = true;
  if (entry->state != State::kReplied) return;
  deliver(*entry);
  trim();
}

// ----- The host's side -----

void PluginStream::host_attached(bool lived_on, TimePoint now) {
  if (host_ == Host::kGivenUp) return;
  host_ = Host::kOpening;
  faulted_ = false;
  said_ready_ = false;
  flights_.clear();
  cursor_ = 0;
  opening_.clear();
  opened_ = 0;
  if (!lived_on) opening_.emplace_back("setup");
  if (snapshot_) {
    opening_.emplace_back("load_state_dict");
  } else if (stateful_) {
    opening_.emplace_back("state_dict");
  }
  opening_deadline_ = now + kStartDeadline;
  last_reply_ = now;
  open_next(now);
}

void PluginStream::open_next(TimePoint now) {
  if (opened_ == opening_.size()) {
    host_ = Host::kServing;
    opening_deadline_ = TimePoint::max();
    pump(now);
    return;
  }
  Call call;
  call.hook = opening_[opened_];
  if (call.hook == "load_state_dict") call.state = *snapshot_;
  const HookInfo* hook = find_hook(call.hook);
  call.deadline_ms = std::chrono::milliseconds(kStartDeadline).count();
  send(std::move(call), *hook, false, now);
}

void PluginStream::opening_reply(const Reply& reply, TimePoint now) {
  if (reply.failure) {
    const std::string said = reply.failure->type + ": " + reply.failure->message;
    if (!was_ready_ && !reply.failure->traceback.empty()) {
      effects_.event("error",
                     {{"hook", reply.hook}, {"reason", said}, {"traceback", reply.failure->traceback}});
    }
    // A hook that worked in an earlier incarnation and now raises is a crash
    // like any other: the budget decides.
    return fault(was_ready_ ? "garbage" : "refused", reply.hook + " raised " + said, now);
  }
  if (reply.hook == "state_dict") {
    if (reply.has_state) snapshot_ = reply.state;
    stateful_ = reply.has_state;
  }
  ++opened_;
  open_next(now);
}

// The call in which the host died; none when it was between two calls.
const PluginStream::Flight* PluginStream::guilty(std::optional<Seq> begun) const {
  if (flights_.empty()) return nullptr;
  if (!begun) return &flights_.front();
  const auto is_begun = [&](const Flight& flight) { return flight.seq == *begun; };
  const auto found = std::find_if(flights_.begin(), flights_.end(), is_begun);
  return found == flights_.end() ? nullptr : &*found;
}

HostPost PluginStream::host_lost(bool restarting, const std::string& reason, std::optional<Seq> begun) {
  HostPost post;
  post.plugin = route_.plugin;
  if (const Flight* in = guilty(begun)) {
    const Flight& flight = *in;
    post.hook = flight.hook;
    post.step = flight.step;
    Entry* entry = flight.replay ? nullptr : find(flight.seq);
    if (entry != nullptr && entry->hook->kind == HookKind::kRows) {
      post.batch = "chunk " + std::to_string(entry->call.context.micro_batch);
    } else if (entry != nullptr && entry->hook->moves_batch()) {
      post.batch = "step " + std::to_string(entry->call.context.global_step) + " micro-batch " +
                   std::to_string(entry->call.context.micro_batch);
    }
    if (entry != nullptr && ++entry->kills >= options_.kills_to_poison) {
      entry->buried = true;
      settle_failed(*entry, Outcome::Kind::kPoison,
                    flight.hook + " killed " + route_.config.name + " " + std::to_string(entry->kills) +
                        " times (" + reason + ")");
    }
  }
  flights_.clear();
  cursor_ = 0;
  cautious_ = true;
  opening_deadline_ = TimePoint::max();
  if (host_ != Host::kGivenUp) host_ = Host::kAbsent;
  for (Entry& entry : entries_) {  // outputs that nobody took are made again, while somebody can make them
    const bool untaken = entry.state == State::kReplied && !entry.accepted && !entry.buried;
    if (restarting && untaken) entry.state = State::kQueued;
  }
  if (observer_) {
    report_.events_dropped += static_cast<std::int64_t>(entries_.size());
    entries_.clear();
  }
  trim();
  if (!restarting) give_up(route_.config.name + " was given up after " + reason);
  return post;
}

void PluginStream::on_reply(Reply reply, TimePoint now) {
  if (faulted_ || host_ == Host::kAbsent || host_ == Host::kGivenUp) return;
  if (flights_.empty() || flights_.front().seq != reply.seq || flights_.front().hook != reply.hook) {
    return fault(
        "garbage",
        "a reply to " + reply.hook + " (call " + std::to_string(reply.seq.value) + ") that nobody waits for",
        now);
  }
  Flight flight = std::move(flights_.front());
  flights_.pop_front();
  last_reply_ = now;
  if (!flights_.empty()) flights_.front().begun = now;
  if (flight.seq == Seq{0}) return opening_reply(reply, now);

  const float waited_us = static_cast<float>(seconds_between(flight.sent, now) * 1e6);
  if (latencies_us_.size() < kLatencies)
    latencies_us_.push_back(waited_us);
  else
    latencies_us_[latency_at_++ % kLatencies] = waited_us;

  Entry* entry = find(flight.seq);
  if (!flight.replay && entry != nullptr) entry_reply(*entry, std::move(reply), std::move(flight.notes));
  pump(now);
}

void PluginStream::on_note(Note note) {
  if (!flights_.empty() && flights_.front().seq == note.seq && !flights_.front().replay) {
    flights_.front().notes.push_back(std::move(note));
  }
}

void PluginStream::on_progress(const Progress& progress, TimePoint now) {
  if (!flights_.empty() && flights_.front().seq == progress.seq) flights_.front().begun = now;
}

TimePoint PluginStream::next_deadline() const {
  if (faulted_) return TimePoint::max();
  TimePoint next = opening_deadline_;
  if (!flights_.empty() && !flights_.front().asking)
    next = std::min(next, flights_.front().begun + flights_.front().deadline);
  return next;
}

void PluginStream::on_tick(TimePoint now) {
  if (now < next_deadline()) return;
  const std::string where = flights_.empty() ? "its start" : flights_.front().hook;
  fault("hang", where + " has not returned within its deadline", now);
}

void PluginStream::fault(std::string kind, std::string reason, TimePoint now) {
  faulted_ = true;
  HostFault fault;
  fault.plugin = route_.plugin;
  fault.kind = std::move(kind);
  fault.reason = std::move(reason);
  if (!flights_.empty()) {
    fault.hook = flights_.front().hook;
    fault.step = flights_.front().step;
    fault.seconds = seconds_between(flights_.front().begun, now);
  }
  effects_.fault(std::move(fault));
}

// ----- Sending -----

void PluginStream::pump(TimePoint now) {
  if (host_ != Host::kServing || faulted_) return;
  while (cursor_ < entries_.size()) {
    Entry& entry = entries_[cursor_];
    if (!has_credit(entry.call.batch)) break;
    if (entry.accepted || entry.buried) {
      ++cursor_;
      continue;
    }
    if (entry.awaits_input) break;
    const bool replay = entry.state == State::kConsumed;
    if (cautious_ && !replay && !flights_.empty()) break;
    if (entry.again && entry.sent_before) entry.call.batch = entry.again();
    Call call = entry.call;
    if (entry.again && !entry.sent_before) call.writable = writable_in(call.batch);
    call.context.replaying = replay;
    if (replay)
      ++report_.replays;
    else if (entry.sent_before)
      ++report_.retries;
    else if (observer_)
      ++report_.events_sent;
    entry.sent_before = true;
    ++cursor_;
    send(std::move(call), *entry.hook, replay, now);
  }
  if (said_ready_ || replaying()) return;
  said_ready_ = true;
  was_ready_ = true;
  effects_.ready();
}

bool PluginStream::has_credit(const Batch& input) const {
  if (flights_.empty()) return true;
  std::size_t bytes = bytes_of(input);
  for (const Flight& flight : flights_) bytes += flight.bytes;
  return flights_.size() < options_.credits && bytes <= options_.credit_bytes;
}

bool PluginStream::replaying() const {
  const auto is_replay = [](const Flight& flight) { return flight.replay; };
  if (std::any_of(flights_.begin(), flights_.end(), is_replay)) return true;
  return std::any_of(
      entries_.begin() + static_cast<std::ptrdiff_t>(cursor_), entries_.end(),
      [](const Entry& entry) { return entry.state == State::kConsumed && !entry.accepted && !entry.buried; });
}

void PluginStream::send(Call call, const HookInfo& hook, bool replay, TimePoint now) {
  Flight flight;
  flight.seq = call.seq;
  flight.hook = call.hook;
  flight.replay = replay;
  flight.sent = now;
  flight.begun = now;
  flight.deadline = call.seq == Seq{0} ? Duration(kStartDeadline) : deadline_of(hook);
  flight.step = call.seq == Seq{0} ? -1 : call.context.global_step;
  flight.bytes = bytes_of(call.batch);
  flights_.push_back(std::move(flight));
  ++report_.calls;
  effects_.send(std::move(call));
}

Duration PluginStream::deadline_of(const HookInfo& hook) const {
  const auto given =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(route_.config.deadline_seconds));
  switch (hook.pace) {
    case HookPace::kStep:
      return given;
    case HookPace::kWaited:
      return route_.config.deadline_given ? given : Duration(kWaitedDeadline);
    case HookPace::kStart:
      return Duration(kStartDeadline);
  }
  return given;
}

PluginStream::Entry* PluginStream::find(Seq seq) {
  const auto at = std::lower_bound(entries_.begin(), entries_.end(), seq,
                                   [](const Entry& entry, Seq wanted) { return entry.call.seq < wanted; });
  return at == entries_.end() || at->call.seq != seq ? nullptr : &*at;
}

PluginReport PluginStream::report() const {
  PluginReport report = report_;
  report.p50_us = percentile(latencies_us_, 0.50);
  report.p99_us = percentile(latencies_us_, 0.99);
  return report;
}

}  // namespace bulkhead
