// bulkhead-worker: started by the coordinator, once per rank.

#include <charconv>
#include <csignal>
#include <cstdlib>
#include <string>
#include <unistd.h>

#include "protocol/log.h"
#include "worker.h"

namespace {

std::string text_of(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::int64_t number_of(const char* name) {
  const std::string text = text_of(name);
  std::int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

int main() {
  using namespace bulkhead;
  Worker::Identity identity;
  identity.endpoint = text_of("BULKHEAD_ENDPOINT");
  identity.secret = text_of("BULKHEAD_SECRET");
  identity.generation = Generation(number_of("BULKHEAD_GENERATION"));
  identity.rank = number_of("RANK");
  if (const std::string address = text_of("MASTER_ADDR"); !address.empty()) identity.master_address = address;
  identity.master_port = static_cast<std::uint16_t>(number_of("MASTER_PORT"));
  start_log("worker-" + std::to_string(identity.rank));
  if (identity.endpoint.empty()) {
    spdlog::error("bulkhead-worker is started by bulkhead-run, which sets BULKHEAD_ENDPOINT");
    return 2;
  }
  // An interrupt at the keyboard reaches the whole group; the coordinator says
  // what it means.
  std::signal(SIGINT, SIG_IGN);
  // Read by the worker's loop; blocked before any thread begins.
  sigset_t read_by_loop;
  sigemptyset(&read_by_loop);
  sigaddset(&read_by_loop, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &read_by_loop, nullptr);
  // gloo writes to the sockets of a rank that has died; that is an error to
  // report, not a reason to die too.
  std::signal(SIGPIPE, SIG_IGN);
  Worker worker(std::move(identity));
  const int status = worker.run();
  // Library threads of gloo and NCCL may still be in a destructor's way.
  spdlog::default_logger()->flush();
  ::_exit(status);
}
