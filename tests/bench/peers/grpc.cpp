// The call of bench_dataplane made with gRPC: a tensor as protobuf bytes, a
// synchronous server in another process, a Unix socket, no limit on sizes.
// The server adds one in the request's bytes and moves them into its answer.
//
// Usage as in bench/measuring.h, CASE grpc-cpp.
#include <csignal>
#include <cstring>
#include <grpcpp/grpcpp.h>
#include <memory>
#include <string>
#include <sys/prctl.h>
#include <utility>
#include <vector>

#include "bench/measuring.h"
#include "call.grpc.pb.h"
#include "support/started_process.h"
#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

using bulkhead_bench::Peer;
using bulkhead_bench::Tensor;

class Server final : public Peer::Service {
  grpc::Status AddOne(grpc::ServerContext*, const Tensor* request, Tensor* answer) override {
    std::string* bytes = const_cast<Tensor*>(request)->mutable_x();
    auto* x = reinterpret_cast<float*>(bytes->data());
    for (std::size_t i = 0; i < bytes->size() / sizeof(float); ++i) x[i] += 1;
    answer->mutable_x()->swap(*bytes);
    return grpc::Status::OK;
  }
};

int serve(const std::string& address) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  Server service;
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(-1);
  builder.SetMaxSendMessageSize(-1);
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  builder.BuildAndStart()->Wait();
  return 0;
}

// A call under way; its address is its tag in the queue.
struct Call {
  grpc::ClientContext context;
  Tensor answer;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Tensor>> reader;
};

void measure(const bench::Request& request) {
  const TemporaryDirectory directory;
  const std::string address = "unix:" + (directory.path() / "grpc").string();
  const StartedProcess peer({"/proc/self/exe", "serve", address});
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  const auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  CHECK(channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(20)));
  const auto stub = Peer::NewStub(channel);
  const std::vector<float> x(request.bytes / sizeof(float), 1.0F);
  grpc::CompletionQueue queue;

  const auto send = [&] {
    Tensor question;
    question.set_x(x.data(), request.bytes);
    auto* call = new Call;
    call->reader = stub->AsyncAddOne(&call->context, question, &queue);
    call->reader->Finish(&call->answer, &call->status, call);
  };
  const auto receive = [&] {
    void* tag = nullptr;
    bool good = false;
    CHECK(queue.Next(&tag, &good) && good);
    const std::unique_ptr<Call> call(static_cast<Call*>(tag));
    CHECK(call->status.ok(), call->status.error_message());
    const std::string& bytes = call->answer.x();
    float first = 0, last = 0;
    CHECK(bytes.size() == request.bytes);
    std::memcpy(&first, bytes.data(), sizeof first);
    std::memcpy(&last, bytes.data() + bytes.size() - sizeof last, sizeof last);
    CHECK(first == 2 && last == 2);
    return 1;
  };
  bench::measure(request, {send, receive});
  peer.signal(SIGKILL);
}

}  // namespace
}  // namespace bulkhead

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 2 && words[0] == "serve") return bulkhead::serve(words[1]);
  bulkhead::measure(bulkhead::bench::read_request(words));
  return 0;
}
