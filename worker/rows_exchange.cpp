#include "rows_exchange.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <ATen/ops/empty.h>

#include "protocol/run_config.h"

namespace bulkhead {
namespace {

constexpr std::size_t kPiece = std::size_t{64} << 20;
constexpr std::size_t kMaxReason = 16 * 1024;
constexpr const char* kWorking = "working";

// From rank 0's memory to every rank's, piece by piece.
Status broadcast(Communicator& communicator, at::Device device, char* bytes, std::size_t size) {
  const bool sends = communicator.rank() == WorkerId{0};
  for (std::size_t at = 0; at < size; at += kPiece) {
    const std::size_t count = std::min(kPiece, size - at);
    at::Tensor piece = at::empty({static_cast<std::int64_t>(count)}, at::kByte);
    if (sends) std::memcpy(piece.mutable_data_ptr(), bytes + at, count);
    at::Tensor there = piece.to(device);
    if (Status sent = communicator.broadcast(there, WorkerId{0}); !sent) return sent;
    if (sends) continue;
    piece = there.cpu();
    std::memcpy(bytes + at, piece.const_data_ptr(), count);
  }
  return ok_status();
}

Status say(Communicator& communicator, const Value& words) {
  // A reason may have been cut within a character.
  const auto heard = communicator.all_gather(words.dump(-1, ' ', false, Value::error_handler_t::replace));
  return heard ? ok_status() : Status(heard.error());
}

}  // namespace

StillWorking::StillWorking(EventLoop& compute, Communicator& communicator, std::chrono::milliseconds pulse)
    : compute_(compute), communicator_(communicator), pulse_(pulse) {
  timer_ = compute_.call_after(pulse_, [this] { say(); });
}

void StillWorking::say() {
  if (status_) status_ = bulkhead::say(communicator_, {{"status", kWorking}});
  if (status_) timer_ = compute_.call_after(pulse_, [this] { say(); });
}

Status send_rows(Communicator& communicator, at::Device device, const RowsVerdict& verdict) {
  const Value words = {{"status", verdict.status},
                       {"reason", verdict.reason.substr(0, kMaxReason)},
                       {"key", verdict.key},
                       {"bytes", verdict.bytes.size}};
  if (Status said = say(communicator, words); !said) return said;
  if (communicator.world_size() == 1) return ok_status();
  std::string bytes(verdict.bytes.text());
  return broadcast(communicator, device, bytes.data(), bytes.size());
}

Result<RowsVerdict> receive_rows(Communicator& communicator, at::Device device) {
  for (;;) {
    const auto heard = communicator.all_gather("");
    if (!heard) return heard.error();
    const Value words = Value::parse(heard->front());
    if (words.at("status") == kWorking) continue;
    RowsVerdict verdict;
    words.at("status").get_to(verdict.status);
    words.at("reason").get_to(verdict.reason);
    words.at("key").get_to(verdict.key);
    std::string bytes(words.at("bytes").get<std::size_t>(), '\0');
    if (Status sent = broadcast(communicator, device, bytes.data(), bytes.size()); !sent) return sent.error();
    verdict.bytes = Blob::of(std::move(bytes));
    return verdict;
  }
}

}  // namespace bulkhead
