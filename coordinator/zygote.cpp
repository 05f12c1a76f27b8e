#include "zygote.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

#include "protocol/codec.h"

namespace bulkhead {
namespace {

Error no_birth(const std::string& why) { return {ErrorCode::kUnavailable, "no host was forked: " + why}; }

std::string request_for(const ChildOptions& options) {
  const Value request = {{"env", options.env},
                         {"log", options.log.string()},
                         {"parent", ::getpid()},
                         {"oom", options.oom_score_adj},
                         {"memory", options.limits.memory_bytes},
                         {"files", options.limits.open_files},
                         {"cpu", options.limits.cpu}};
  return request.dump(-1, ' ', false, Value::error_handler_t::replace);
}

Result<pid_t> pid_in(const std::string& packet) {
  const Value answer = Value::parse(packet, nullptr, false);
  if (!answer.is_object()) return no_birth("its answer cannot be read");
  if (answer.contains("error") && answer["error"].is_string())
    return no_birth(answer["error"].get<std::string>());
  const auto pid = answer.find("pid");
  if (pid == answer.end() || !pid->is_number_integer() || pid->get<std::int64_t>() <= 1)
    return no_birth("its answer cannot be read");
  return static_cast<pid_t>(pid->get<std::int64_t>());
}

}  // namespace

Result<std::unique_ptr<Zygote>> Zygote::start(EventLoop& loop, ChildOptions options) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
    return Error{ErrorCode::kUnavailable, std::string("cannot make a socket: ") + std::strerror(errno)};
  std::unique_ptr<Zygote> zygote(new Zygote(loop));
  zygote->socket_ = UniqueFd(ends[0]);
  const UniqueFd its(ends[1]);
  options.input = its.get();
  Zygote* self = zygote.get();
  auto process = ChildProcess::spawn(loop, options, [self](const ProcessEnd& end) {
    self->process_.reset();
    self->lose("the zygote has ended (" + end.describe() + ")");
  });
  if (!process) return process.error();
  zygote->process_ = std::move(*process);
  zygote->watch_ = loop.watch_readable(zygote->socket_.get(), [self] { self->answered(); });
  return zygote;
}

Zygote::~Zygote() = default;

void Zygote::fork(const ChildOptions& options, Born born) {
  waiting_.push_back(std::move(born));
  const std::string request = request_for(options);
  const bool sent = !gone_ && ::send(socket_.get(), request.data(), request.size(),
                                     MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(request.size());
  if (sent) return;
  const std::string why =
      gone_ ? "the zygote has ended" : std::string("it cannot be asked: ") + std::strerror(errno);
  loop_.post([this, why, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) lose(why);
  });
}

void Zygote::answered() {
  std::array<char, 4096> packet;
  const ssize_t size = ::recv(socket_.get(), packet.data(), packet.size(), MSG_DONTWAIT);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (size <= 0 || waiting_.empty()) return lose("the zygote has ended");
  const Born born = std::move(waiting_.front());
  waiting_.pop_front();
  born(pid_in({packet.data(), static_cast<std::size_t>(size)}));
}

void Zygote::lose(const std::string& why) {
  gone_ = true;
  watch_.reset();
  const std::weak_ptr<bool> alive = alive_;
  while (!alive.expired() && !waiting_.empty()) {
    const Born born = std::move(waiting_.front());
    waiting_.pop_front();
    born(no_birth(why));
  }
}

}  // namespace bulkhead
