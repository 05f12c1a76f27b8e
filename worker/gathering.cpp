#include "gathering.h"

#include <charconv>

namespace bulkhead {
namespace {

std::string name_of(const AskRequest& request) {
  return std::to_string(request.position) + " " + request.hook + " at step " + std::to_string(request.step);
}

// The position that begins the name of a call; −1 where there is none.
std::int64_t position_of(const std::string& call) {
  std::int64_t position = -1;
  std::from_chars(call.data(), call.data() + call.size(), position);
  return position;
}

}  // namespace

void Gathering::ask(PluginStream& stream, AskRequest request, TimePoint now) {
  if (around_.alone) {
    for (Tensor& tensor : request.batch) tensor.name = "0";
    return stream.answered(request.seq, request.number, {}, std::move(request.batch), now);
  }
  open_[{request.position, request.number}] = request.seq;
  const auto found = wanted_.find(request.position);
  if (found != wanted_.end() && found->second.number <= request.number) wanted_.erase(found);
  tell(name_of(request), request.number, "part", std::move(request.batch));
}

void Gathering::wanted(const PluginStream& stream, const GatherWanted& wanted) {
  const std::int64_t position = position_of(wanted.call);
  if (open_.contains({position, wanted.number})) return;  // our part is on its way
  if (stream.standing(position) == PluginStream::Standing::kOver) {
    return tell(wanted.call, wanted.number, stream.given_up() ? "gone" : "over");
  }
  wanted_[position] = {wanted.call, wanted.number};
}

void Gathering::over(std::int64_t position, bool gone) {
  const auto found = wanted_.find(position);
  if (found == wanted_.end()) return;
  tell(found->second.call, found->second.number, gone ? "gone" : "over");
  wanted_.erase(found);
}

void Gathering::done(PluginStream& stream, GatherDone done, TimePoint now) {
  const auto found = open_.find({position_of(done.call), done.number});
  if (found == open_.end()) return;  // this rank had nothing to say
  const Seq seq = found->second;
  open_.erase(found);
  std::optional<Failure> failure;
  if (!done.missing.empty()) failure = Failure{"RuntimeError", std::move(done.missing), {}};
  stream.answered(seq, done.number, std::move(failure), std::move(done.batch), now);
}

void Gathering::tell(std::string call, std::int64_t number, std::string state, Batch batch) {
  GatherPart part;
  part.plugin = around_.plugin;
  part.call = std::move(call);
  part.number = number;
  part.state = std::move(state);
  part.batch = std::move(batch);
  around_.tell_coordinator(std::move(part));
}

}  // namespace bulkhead
