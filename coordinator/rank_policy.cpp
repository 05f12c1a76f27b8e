#include "rank_policy.h"

#include <algorithm>
#include <tuple>

#include "protocol/result.h"

namespace bulkhead {

RankDecision decide_ranks(std::span<const RankFailure> failures, std::int64_t ranks,
                          std::int64_t restarts_left) {
  CHECK(!failures.empty());
  const RankFailure& cause =
      *std::min_element(failures.begin(), failures.end(), [](const auto& a, const auto& b) {
        return std::tuple(!a.death, a.time, a.rank) < std::tuple(!b.death, b.time, b.rank);
      });
  RankDecision decision{.cause = cause, .reason = {}};
  if (!cause.death && static_cast<std::int64_t>(failures.size()) == ranks) {
    decision.reason = cause.reason;
    return decision;
  }
  decision.restart = restarts_left > 0;
  decision.reason =
      "rank " + std::to_string(cause.rank) + (cause.death ? " ended: " : " failed: ") + cause.reason;
  if (!decision.restart) decision.reason += " (no restart of the ranks left: --max-restarts)";
  return decision;
}

}  // namespace bulkhead
