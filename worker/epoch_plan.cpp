#include "epoch_plan.h"

#include <algorithm>

namespace bulkhead {

EpochPlan::EpochPlan(std::int64_t batches, std::int64_t accumulate)
    : batches_(batches), segments_{{0, 0, accumulate}} {
  CHECK(accumulate >= 1 && batches >= accumulate, "the data was checked to fill a step");
}

void EpochPlan::begin(std::int64_t first_step) {
  const auto past = std::find_if(segments_.begin(), segments_.end(),
                                 [&](const Segment& segment) { return segment.step > first_step; });
  segments_.erase(segments_.begin(), past - 1);
  segments_.front().step = first_step;
  lay_out();
}

void EpochPlan::set(std::int64_t step, std::int64_t accumulate) {
  accumulate = std::clamp<std::int64_t>(accumulate, 1, batches_);
  while (segments_.size() > 1 && segments_.back().step >= step) segments_.pop_back();
  if (segments_.back().step >= step)
    segments_.back().accumulate = accumulate;
  else
    segments_.push_back({step, 0, accumulate});
  lay_out();
}

// The first micro-batch of each segment.
void EpochPlan::lay_out() {
  segments_.front().batch = 0;
  for (std::size_t i = 1; i < segments_.size(); ++i) {
    const Segment& before = segments_[i - 1];
    segments_[i].batch = before.batch + (segments_[i].step - before.step) * before.accumulate;
  }
}

const EpochPlan::Segment& EpochPlan::segment_of(std::int64_t step) const {
  const auto past = std::find_if(segments_.begin(), segments_.end(),
                                 [&](const Segment& segment) { return segment.step > step; });
  CHECK(past != segments_.begin(), "a step before this epoch");
  return *(past - 1);
}

std::int64_t EpochPlan::accumulate_of(std::int64_t step) const { return segment_of(step).accumulate; }

std::int64_t EpochPlan::first_batch_of(std::int64_t step) const {
  const Segment& segment = segment_of(step);
  return segment.batch + (step - segment.step) * segment.accumulate;
}

std::int64_t EpochPlan::end_step() const {
  for (std::size_t i = 0; i < segments_.size(); ++i) {
    const Segment& segment = segments_[i];
    const std::int64_t fits =
        segment.step + std::max<std::int64_t>(0, batches_ - segment.batch) / segment.accumulate;
    if (i + 1 == segments_.size() || fits < segments_[i + 1].step) return fits;
  }
  return segments_.front().step;
}

Value EpochPlan::to_json() const {
  Value segments = Value::array();
  for (const Segment& segment : segments_) segments.push_back({segment.step, segment.accumulate});
  return segments;
}

Status EpochPlan::load(const Value& json) {
  std::vector<Segment> segments;
  try {
    for (const Value& item : json) {
      segments.push_back({item.at(0).get<std::int64_t>(), 0, item.at(1).get<std::int64_t>()});
      if (segments.back().accumulate < 1) return Error{ErrorCode::kMalformed, "an epoch plan without steps"};
    }
  } catch (const Value::exception& error) {
    return Error{ErrorCode::kMalformed, std::string("the plan of an epoch: ") + error.what()};
  }
  if (segments.empty()) return Error{ErrorCode::kMalformed, "an epoch plan without steps"};
  for (Segment& segment : segments) segment.accumulate = std::min(segment.accumulate, batches_);
  segments_ = std::move(segments);
  lay_out();
  return ok_status();
}

}  // namespace bulkhead
