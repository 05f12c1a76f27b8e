#include "gather_hub.h"

#include <algorithm>

#include "protocol/result.h"

namespace bulkhead {
namespace {

// "on_step_end at step 7" of "12 on_step_end at step 7".
std::string place_of(const std::string& call) {
  const std::size_t space = call.find(' ');
  return space == std::string::npos ? call : call.substr(space + 1);
}

std::string listed(const std::vector<std::size_t>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ") + std::to_string(ranks[i]);
  }
  return text;
}

}  // namespace

GatherHub::Words GatherHub::take(std::int64_t rank, GatherPart part) {
  const auto place = static_cast<std::size_t>(rank);
  CHECK(place < ranks_);
  Words words;
  const Key key{part.plugin, part.call, part.number};
  auto at = gathers_.find(key);
  const bool is_part = part.state == "part";
  if (gone_.contains({part.plugin, place}) || (at == gathers_.end() && !is_part)) return words;
  if (at == gathers_.end()) at = begin(key, place, words);
  Word& word = at->second[place];
  if (word.said != Said::kNothing) return words;  // a call that is made again says it again
  word.said = is_part ? Said::kPart : part.state == "over" ? Said::kOver : Said::kGone;
  if (is_part) {
    CHECK(part.batch.size() == 1);
    word.part = std::move(part.batch);
  }
  settle(at, words);
  return words;
}

GatherHub::Gathers::iterator GatherHub::begin(const Key& key, std::size_t first, Words& words) {
  const auto at = gathers_.emplace(key, Gather(ranks_)).first;
  for (std::size_t rank = 0; rank < ranks_; ++rank) {
    if (gone_.contains({std::get<0>(key), rank})) {
      at->second[rank].said = Said::kGone;
    } else if (rank != first) {
      GatherWanted wanted;
      std::tie(wanted.plugin, wanted.call, wanted.number) = key;
      words.wanted.emplace_back(static_cast<std::int64_t>(rank), std::move(wanted));
    }
  }
  return at;
}

GatherHub::Words GatherHub::give_up(PluginId plugin, std::int64_t rank) {
  const auto place = static_cast<std::size_t>(rank);
  gone_.insert({plugin, place});
  Words words;
  for (auto at = gathers_.begin(); at != gathers_.end();) {
    if (std::get<0>(at->first) != plugin) {
      ++at;
      continue;
    }
    if (at->second[place].said == Said::kNothing) at->second[place].said = Said::kGone;
    at = settle(at, words);
  }
  return words;
}

void GatherHub::clear() {
  gathers_.clear();
  gone_.clear();
}

GatherHub::Gathers::iterator GatherHub::settle(Gathers::iterator at, Words& words) {
  const auto is_open = [](const Word& word) { return word.said == Said::kNothing; };
  if (std::any_of(at->second.begin(), at->second.end(), is_open)) return std::next(at);
  GatherDone done;
  std::tie(done.plugin, done.call, done.number) = at->first;
  std::vector<std::size_t> over;
  for (std::size_t rank = 0; rank < ranks_; ++rank) {
    Word& word = at->second[rank];
    if (word.said == Said::kOver) over.push_back(rank);
    if (word.said != Said::kPart) continue;
    done.batch.push_back(std::move(word.part.front()));
    done.batch.back().name = std::to_string(rank);
  }
  if (!over.empty()) {
    done.batch.clear();
    done.missing = listed(over) + " returned from " + place_of(done.call) +
                   (done.number == 0 ? " without calling all_gather"
                                     : " after fewer calls of all_gather than the " +
                                           std::to_string(done.number + 1) + " made here");
  }
  words.done.push_back(std::move(done));
  return gathers_.erase(at);
}

}  // namespace bulkhead
