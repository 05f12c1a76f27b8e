#include "gather_hub.h"

#include <algorithm>
#include <cctype>

#include "protocol/result.h"

namespace bulkhead {
namespace {

std::string place_of_call(const std::string& call) {
  std::vector<std::string> words(1);
  for (const char c : call) {
    const bool in_word = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
    if (in_word) {
      words.back() += c;
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  const bool has_step =
      words.size() > 1 && !words[1].empty() &&
      std::all_of(words[1].begin(), words[1].end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  return has_step ? words[0] + " at step " + words[1] : call;
}

std::string times(std::int64_t count) { return std::to_string(count) + (count == 1 ? " call" : " calls"); }

}  // namespace

GatherHub::Calls::iterator GatherHub::find(const Key& key) {
  const auto [at, is_new] = calls_.try_emplace(key);
  if (is_new) at->second.leaves.resize(ranks_);
  return at;
}

bool GatherHub::is_gone(PluginId plugin, std::size_t rank) const { return gone_.contains({plugin, rank}); }

std::vector<GatherDone> GatherHub::take(std::int64_t rank, GatherPart part) {
  const auto place = static_cast<std::size_t>(rank);
  CHECK(place < ranks_);
  if (is_gone(part.plugin, place)) return {};
  const auto at = find({part.plugin, part.call});
  OpenCall& call = at->second;
  if (part.state != "part") {
    if (!call.leaves[place]) call.leaves[place] = Leave{part.state == "over", part.number};
    return settle(at);
  }
  CHECK(part.batch.size() == 1);
  // A call that is made again asks again; what was taken once stays.
  if (part.number <= call.done || call.leaves[place]) return {};
  auto& parts = call.parts[part.number];
  parts.resize(ranks_);
  if (!parts[place]) parts[place] = std::move(part.batch.front());
  return settle(at);
}

std::vector<GatherDone> GatherHub::give_up(PluginId plugin, std::int64_t rank) {
  gone_.insert({plugin, static_cast<std::size_t>(rank)});
  std::vector<GatherDone> all;
  for (auto at = calls_.lower_bound({plugin, {}}); at != calls_.end() && at->first.first == plugin;) {
    const auto next = std::next(at);  // settle may drop the call
    for (GatherDone& done : settle(at)) all.push_back(std::move(done));
    at = next;
  }
  return all;
}

void GatherHub::clear() {
  calls_.clear();
  gone_.clear();
}

// Every gather of the call for which nobody is waited for any more.
std::vector<GatherDone> GatherHub::settle(Calls::iterator at) {
  OpenCall& call = at->second;
  const auto has_left = [&](std::size_t rank) {
    return call.leaves[rank].has_value() || is_gone(at->first.first, rank);
  };
  std::vector<GatherDone> all;
  while (!call.parts.empty()) {
    const auto& [number, parts] = *call.parts.begin();
    bool complete = true;
    for (std::size_t rank = 0; rank < ranks_; ++rank) complete &= parts[rank].has_value() || has_left(rank);
    if (!complete) break;
    all.push_back(finished(at->first, call, number));
    call.done = number;
    call.parts.erase(call.parts.begin());
  }
  bool all_left = true;
  for (std::size_t rank = 0; rank < ranks_; ++rank) all_left &= has_left(rank);
  if (all_left) calls_.erase(at);
  return all;
}

GatherDone GatherHub::finished(const Key& key, const OpenCall& call, std::int64_t number) const {
  GatherDone done;
  done.plugin = key.first;
  done.call = key.second;
  done.number = number;
  done.missing = missing(key, call, number);
  if (!done.missing.empty()) return done;
  const auto& parts = call.parts.at(number);
  for (std::size_t rank = 0; rank < ranks_; ++rank) {
    if (!parts[rank]) continue;
    done.batch.push_back(*parts[rank]);
    done.batch.back().name = std::to_string(rank);
  }
  return done;
}

// Empty, or the sentence that names the ranks that returned without asking.
std::string GatherHub::missing(const Key& key, const OpenCall& call, std::int64_t number) const {
  std::vector<std::string> ranks;
  std::int64_t asked = number;
  for (std::size_t rank = 0; rank < ranks_; ++rank) {
    const auto& leave = call.leaves[rank];
    if (call.parts.at(number)[rank] || !leave || !leave->returned) continue;
    ranks.push_back(std::to_string(rank));
    asked = std::min(asked, leave->asked);
  }
  if (ranks.empty()) return {};
  std::string listed = "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    listed += (i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ") + ranks[i];
  }
  if (ranks.size() == 1) listed = "rank " + ranks.front();
  const std::string how =
      asked == 0 ? " without calling all_gather"
                 : " after " + times(asked) + " of all_gather, where another rank made " + times(number + 1);
  return listed + " returned from " + place_of_call(key.second) + how;
}

}  // namespace bulkhead
