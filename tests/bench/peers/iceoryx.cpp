// The call of bench_dataplane made with iceoryx (2.0, request and response,
// WaitSet on both sides): the request lies in shared memory and is not copied;
// the server writes its answer into a chunk of its own.  Starts the daemon that
// owns the memory, iox-roudi, a server and a client, and ends them in the order
// in which iceoryx leaves nothing behind.  Chunks of 64 MiB are enough for one
// call at a time.
//
// Usage as in bench/measuring.h, CASE iceoryx.
#include <csignal>
#include <fstream>
#include <iceoryx_posh/popo/untyped_client.hpp>
#include <iceoryx_posh/popo/untyped_server.hpp>
#include <iceoryx_posh/popo/wait_set.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>
#include <string>
#include <sys/prctl.h>
#include <utility>
#include <vector>

#include "bench/measuring.h"
#include "support/started_process.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

using namespace iox::popo;

constexpr std::uint32_t kAlignment = 64;
constexpr std::uint64_t kCapacity = 16;  // of the queues: more than calls in flight, so that none is dropped
const iox::capro::ServiceDescription kService{"bulkhead", "bench", "add_one"};

// Chunks for each size that is measured, and the headers.
constexpr const char* kMemory = R"([general]
version = 1
[[segment]]
[[segment.mempool]]
size = 1024
count = 1000
[[segment.mempool]]
size = 131072
count = 64
[[segment.mempool]]
size = 1114112
count = 64
[[segment.mempool]]
size = 67174400
count = 6
)";

template <typename Expected>
void check(Expected&& result, const char* what) {
  result.or_else([&](auto& error) { CHECK(false, what + std::to_string(static_cast<int>(error))); });
}

WaitSet<>* server_waits = nullptr;

int serve(std::uint32_t bytes) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  iox::runtime::PoshRuntime::initRuntime("bulkhead-bench-server");
  ServerOptions options;
  options.requestQueueCapacity = kCapacity;
  UntypedServer server(kService, options);
  WaitSet<> waiting;
  check(waiting.attachState(server, ServerState::HAS_REQUEST), "attach: ");
  server_waits = &waiting;
  bool serving = true;
  std::signal(SIGTERM, [](int) { server_waits->markForDestruction(); });
  while (serving) {
    serving = !waiting.wait().empty();
    auto answer = [&](const void* request) {
      check(server.loan(RequestHeader::fromPayload(request), bytes, kAlignment).and_then([&](void* chunk) {
        const auto* in = static_cast<const float*>(request);
        auto* out = static_cast<float*>(chunk);
        for (std::size_t i = 0; i < bytes / sizeof(float); ++i) out[i] = in[i] + 1;
        check(server.send(chunk), "send: ");
      }),
            "loan: ");
      server.releaseRequest(request);
    };
    while (server.take().and_then(answer)) {
    }
  }
  std::signal(SIGTERM, SIG_IGN);
  return 0;
}

class Client {
 public:
  explicit Client(std::uint32_t bytes) : bytes_(bytes) {
    check(waiting_.attachState(client_, ClientState::HAS_RESPONSE), "attach: ");
    while (client_.getConnectionState() != iox::ConnectionState::CONNECTED) ::usleep(1000);
  }

  // As bulkhead's, the input is there already: it is written where no chunk was used before.
  void send() {
    check(client_.loan(bytes_, kAlignment).and_then([this](void* chunk) {
      auto* x = static_cast<float*>(chunk);
      x[0] = x[bytes_ / sizeof(float) - 1] = static_cast<float>(++sent_ % 1000);
      check(client_.send(chunk), "send: ");
    }),
          "loan: ");
  }
  int receive() {
    int ended = 0;
    auto look = [&](const void* answer) {
      const auto* x = static_cast<const float*>(answer);
      const auto expected = static_cast<float>(++received_ % 1000 + 1);
      CHECK(x[0] == expected && x[bytes_ / sizeof(float) - 1] == expected);
      client_.releaseResponse(answer);
      ++ended;
    };
    while (client_.take().and_then(look)) {
    }
    while (ended == 0) {
      waiting_.wait();
      while (client_.take().and_then(look)) {
      }
    }
    return ended;
  }

 private:
  static ClientOptions options() {
    ClientOptions options;
    options.responseQueueCapacity = kCapacity;
    return options;
  }

  const std::uint32_t bytes_;
  long sent_ = 0, received_ = 0;
  UntypedClient client_{kService, options()};
  WaitSet<> waiting_;
};

int call(const std::vector<std::string>& words) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const bench::Request request = bench::read_request(words);
  iox::runtime::PoshRuntime::initRuntime("bulkhead-bench-client");
  Client client(static_cast<std::uint32_t>(request.bytes));
  bench::measure(request, {[&] { client.send(); }, [&] { return client.receive(); }});
  return 0;
}

int keep_memory(std::string file) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  std::string program = BULKHEAD_ROUDI, option = "-c";
  char* const arguments[] = {program.data(), option.data(), file.data(), nullptr};
  return ::execv(program.c_str(), arguments);
}

int run(std::vector<std::string> words) {
  bench::read_request(words);  // the placement is inherited
  const TemporaryDirectory directory;
  const std::string memory = (directory.path() / "memory.toml").string();
  std::ofstream(memory) << kMemory;
  const std::string self = "/proc/self/exe", bytes = words[2];
  StartedProcess daemon({self, "memory", memory});
  StartedProcess server({self, "serve", bytes});
  words.insert(words.begin(), {self, "call"});
  StartedProcess client(std::move(words));
  const int status = client.end(-1);
  server.signal(SIGTERM);
  server.end();
  daemon.signal(SIGTERM);
  daemon.end();
  return status;
}

}  // namespace
}  // namespace bulkhead

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  CHECK(words.size() > 1);
  if (words[0] == "memory") return bulkhead::keep_memory(words[1]);
  if (words[0] == "serve") return bulkhead::serve(static_cast<std::uint32_t>(std::stoul(words[1])));
  if (words[0] == "call") return bulkhead::call({words.begin() + 1, words.end()});
  return bulkhead::run(words);
}
