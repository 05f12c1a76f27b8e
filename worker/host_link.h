// The rank's end of one plugin process: listens where the coordinator says,
// greets the host, carries the stream's calls and watches its deadlines.
//
// Decides nothing: faults go to the coordinator, which alone ends processes.
// The loop thread only.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "call_mark.h"
#include "device_lender.h"
#include "gathering.h"
#include "plugin_stream.h"
#include "protocol/arena.h"
#include "protocol/channel.h"
#include "protocol/event_loop.h"
#include "protocol/local_listener.h"
#include "protocol/messages.h"
#include "protocol/places.h"

namespace bulkhead {

class HostLink {
 public:
  struct Surroundings {
    EventLoop* loop = nullptr;
    Generation generation;  // this worker's
    std::int64_t rank = 0;
    std::string secret;
    std::function<void(Message)> tell_coordinator;
    std::function<void(Seq, Outcome)> settle;
    std::function<void(const Call&, const std::string&)> dead_letter;
    // Every parameter, when the rank stands still; `use` is called later, on this loop.
    std::function<void(std::function<void(Batch)> use)> weights;
    Arena* arena = nullptr;          // of this loop, for what hosts on this machine read
    DeviceMemory* device = nullptr;  // of the rank's GPU, where it has one
    bool alone = false;              // one process of this plugin in all: a world of one rank, or job scope
  };

  HostLink(PluginRoute route, StreamOptions options, Surroundings surroundings);

  void attach(const AttachHost& attach);
  // Answers the coordinator with the call the host was in.
  void lost(const HostLost& lost);
  void gather_wanted(const GatherWanted& wanted) { gathering_.wanted(stream_, wanted); }
  void gather_done(GatherDone done);

  // See PluginStream; these add the time and the call's id.
  Seq submit(std::string_view hook, CallContext context, std::optional<Batch> input = {},
             std::size_t bytes = 0, std::function<Batch()> again = {});
  void supply(Seq seq, Batch input);
  void want(Seq seq);
  void snapshot();

  PluginStream& stream() { return stream_; }
  const PluginRoute& route() const { return stream_.route(); }
  const std::string& name() const { return route().config.name; }
  std::int64_t stale_messages() const { return stale_; }

 private:
  void met(std::unique_ptr<Channel> channel);
  void hang_up();
  void quarantine();
  void on_message(Message message);
  void greet(const Hello& hello);
  void to_host(const Message& message, Seq seq);
  void send_call(Call call);
  bool settle_loans(const Reply& reply);
  // What greet() has agreed on, of what this link can.
  std::vector<std::string> agreed(const Hello& hello) const;
  bool by_socket() const { return route().config.transport == "socket"; }
  bool on_device() const { return route().config.device == "cuda"; }
  void open_doors(const std::string& path);
  void share_memory(UniqueFd socket);
  void share_memory_over_channel();
  void take_ring(Result<std::unique_ptr<Channel>> ring);
  void begin();
  void take_over(Batch& output);
  void garbage(const std::string& reason);
  void arm();
  PluginStream::Effects effects();
  void ask(AskRequest request);

  Surroundings around_;
  Gathering gathering_;
  PluginStream stream_;
  AttachHost attach_;
  std::optional<CallMark> mark_;
  bool greeted_ = false;
  bool complained_ = false;  // that the GPU has no room: once is enough
  std::int64_t stale_ = 0;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<LocalListener> ring_door_, memory_door_;
  std::optional<Places> places_;
  std::map<Seq, std::vector<Place>> lent_;  // by the call that will give it back
  std::optional<DeviceLender> lender_;
  std::vector<std::shared_ptr<DeviceBlock>> quarantined_;  // of processes that ended a moment ago
  std::unique_ptr<Channel> channel_;                       // before the listener and the places it must go
  EventLoop::Handle deadline_, patience_, quarantine_;
};

}  // namespace bulkhead
