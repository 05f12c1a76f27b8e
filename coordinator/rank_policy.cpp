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
        const auto order = [](const RankFailure& failure) {
          // Of an agreed one all give the reason: the lowest rank's is taken.
          const TimePoint time = failure.agreed ? TimePoint() : failure.time;
          return std::tuple(!failure.agreed, !failure.death, time, failure.rank);
        };
        return order(a) < order(b);
      });
  RankDecision decision{.cause = cause, .reason = {}};
  const bool all = static_cast<std::int64_t>(failures.size()) == ranks;
  if (cause.agreed || (!cause.death && all)) {
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
