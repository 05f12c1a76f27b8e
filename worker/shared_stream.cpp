#include "shared_stream.h"

#include <algorithm>

#include "protocol/result.h"

namespace bulkhead {

SharedStream::SharedStream(std::vector<std::int64_t> ranks, const PluginRoute& route, Stream stream,
                           Settle settle)
    : ranks_(std::move(ranks)),
      node_(route.config.scope == "node"),
      observer_(!route.traits.steers),
      stream_(std::move(stream)),
      settle_(std::move(settle)) {
  CHECK(!ranks_.empty());
}

bool SharedStream::merges(const std::string& hook) const {
  const HookInfo* info = find_hook(hook);
  if (info->kind == HookKind::kRows) return false;  // the home's alone
  return node_ ? info->kind != HookKind::kState : info->moves_batch();
}

std::int64_t SharedStream::call(std::int64_t rank, SharedCall call) {
  const std::int64_t number = ++numbers_[rank];
  queues_[rank].push_back({number, std::move(call), false});
  advance();
  return number;
}

// The home's calls set the pace: its next one goes in when all others that
// belong to it are there.
void SharedStream::advance() {
  for (;;) {
    const std::deque<Waiting>& home = queues_[ranks_.front()];
    if (home.empty()) return;
    if (!merges(home.front().call.hook)) {
      submit(ranks_.front());
      continue;
    }
    const auto has_none = [this](std::int64_t rank) { return queues_[rank].empty(); };
    if (std::any_of(ranks_.begin(), ranks_.end(), has_none)) return;
    for (const std::int64_t rank : ranks_) submit(rank);
  }
}

void SharedStream::submit(std::int64_t rank) {
  Waiting next = std::move(queues_[rank].front());
  queues_[rank].pop_front();
  if (next.call.hook.empty()) return;
  const Key key{rank, next.number};
  const Seq seq = stream_.submit(std::move(next.call));
  if (observer_) return;
  submitted_[key] = seq;
  keys_[seq.value] = key;
  if (next.wanted) stream_.want(seq);
}

SharedStream::Waiting* SharedStream::waiting(Key key) {
  std::deque<Waiting>& queue = queues_[key.first];
  const auto found = std::find_if(queue.begin(), queue.end(),
                                  [&](const Waiting& call) { return call.number == key.second; });
  return found == queue.end() ? nullptr : &*found;
}

void SharedStream::supply(std::int64_t rank, std::int64_t number, Batch input) {
  if (Waiting* call = waiting({rank, number})) {
    call->call.input = std::move(input);
  } else if (const auto found = submitted_.find({rank, number}); found != submitted_.end()) {
    stream_.supply(found->second, std::move(input));
  }
}

void SharedStream::want(std::int64_t rank, std::int64_t number) {
  if (Waiting* call = waiting({rank, number})) {
    call->wanted = true;
  } else if (const auto found = submitted_.find({rank, number}); found != submitted_.end()) {
    stream_.want(found->second);
  }
}

void SharedStream::settled(Seq seq, Outcome outcome) {
  const auto found = keys_.find(seq.value);
  CHECK(found != keys_.end(), "a call that no rank made");
  const Key key = found->second;
  keys_.erase(found);
  submitted_.erase(key);
  settle_(key.first, key.second, std::move(outcome));
}

}  // namespace bulkhead
