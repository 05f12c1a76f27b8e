#include "host_link.h"

#include <algorithm>
#include <utility>

#include "output_check.h"
#include "protocol/log.h"
#include "protocol/ring_channel.h"

namespace bulkhead {
namespace {

constexpr std::string_view kIpc = "ipc://";
constexpr auto kRingPatience = std::chrono::seconds(30);
constexpr auto kQuarantine = std::chrono::seconds(1);

void make_readable(Reply& reply) {
  reply.control.reason = readable(reply.control.reason);
  if (!reply.failure) return;
  for (std::string* text : {&reply.failure->type, &reply.failure->message, &reply.failure->traceback}) {
    *text = readable(*text);
  }
}

}  // namespace

HostLink::HostLink(PluginRoute route, StreamOptions options, Surroundings surroundings)
    : around_(std::move(surroundings)),
      gathering_({route.plugin, around_.alone,
                  [this](Message message) {
                    std::visit([&](auto& body) { body.generation = around_.generation; }, message);
                    around_.tell_coordinator(std::move(message));
                  }}),
      stream_(std::move(route), options, effects()) {
  if (by_socket()) around_.arena = nullptr;
}

PluginStream::Effects HostLink::effects() {
  PluginStream::Effects effects;
  effects.send = [this](Call call) {
    call.generation = around_.generation;
    call.seed_rank = call.context.rank.value_or(around_.rank);
    send_call(std::move(call));
  };
  effects.settle = around_.settle;
  effects.ready = [this] {
    HostReady ready;
    ready.generation = around_.generation;
    ready.plugin = this->route().plugin;
    ready.host_generation = attach_.host_generation;
    around_.tell_coordinator(ready);
  };
  effects.fault = [this](HostFault fault) {
    fault.generation = around_.generation;
    fault.host_generation = attach_.host_generation;
    around_.tell_coordinator(std::move(fault));
  };
  effects.dead_letter = [this](const Call& call, const std::string& reason) {
    Call kept = call;
    kept.batch = in_host_memory(std::move(kept.batch));
    around_.dead_letter(kept, reason);
  };
  effects.event = [this](std::string event, Value fields) {
    fields["plugin"] = name();
    fields["rank"] = around_.rank;
    fields["generation"] = attach_.host_generation.value;
    around_.tell_coordinator(EventLine{around_.generation, std::move(event), std::move(fields)});
  };
  effects.ask = [this](AskRequest request) { ask(std::move(request)); };
  effects.answer = [this](Answer answer) {
    answer.generation = around_.generation;
    to_host(answer, answer.seq);
  };
  effects.over = [this](std::int64_t position, bool gone) { gathering_.over(position, gone); };
  return effects;
}

void HostLink::ask(AskRequest request) {
  if (request.what == "all_gather") {
    return gathering_.ask(stream_, std::move(request), around_.loop->now());
  }
  around_.weights([this, seq = request.seq, number = request.number](Batch weights) {
    if (around_.arena != nullptr) share(*around_.arena, weights);
    stream_.answered(seq, number, {}, std::move(weights), around_.loop->now());
    arm();
  });
}

void HostLink::gather_done(GatherDone done) {
  gathering_.done(stream_, std::move(done), around_.loop->now());
  arm();
}

void HostLink::attach(const AttachHost& attach) {
  hang_up();
  attach_ = attach;
  mark_.emplace(attach.endpoint);
  auto listener = listen_channel(*around_.loop, attach.endpoint, {.one_peer = true},
                                 [this](std::unique_ptr<Channel> channel) { met(std::move(channel)); });
  if (!listener) return garbage(listener.error().message);
  listener_ = std::move(*listener);
  if (attach.endpoint.starts_with(kIpc) && !by_socket()) open_doors(attach.endpoint.substr(kIpc.size()));
}

// Where a host on this machine may come in beside its ZeroMQ connection.  What
// cannot be opened is not offered.
void HostLink::open_doors(const std::string& path) {
  auto ring =
      ring_listen(*around_.loop, path + ".ring", {}, [this](auto channel) { take_ring(std::move(channel)); });
  if (ring) ring_door_ = std::move(*ring);
  if (!ring) spdlog::warn("{} is called through a socket: {}", name(), ring.error().message);
  if (around_.arena == nullptr) return;
  auto memory = LocalListener::open(*around_.loop, path + ".memory",
                                    [this](UniqueFd socket) { share_memory(std::move(socket)); });
  if (memory) memory_door_ = std::move(*memory);
  if (!memory) spdlog::warn("batches of {} are sent byte by byte: {}", name(), memory.error().message);
}

std::vector<std::string> HostLink::agreed(const Hello& hello) const {
  std::vector<std::string> agreed;
  const auto offers = [&](std::string_view name) { return std::ranges::count(hello.capabilities, name) > 0; };
  if (ring_door_ && offers(kRing)) agreed.emplace_back(kRing);
  if (memory_door_ && offers(kSharedMemory)) agreed.emplace_back(kSharedMemory);
  if (!on_device()) return agreed;
  const std::string gpu = around_.device == nullptr ? "" : kDevice.data() + around_.device->device().uuid();
  if (memory_door_ && !gpu.empty() && offers(gpu)) {
    agreed.push_back(gpu);
  } else {
    spdlog::warn("batches of {} go through host memory: it does not share this rank's GPU", name());
  }
  return agreed;
}

void HostLink::take_ring(Result<std::unique_ptr<Channel>> ring) {
  if (!patience_) return garbage("it came to a ring that was not agreed on");
  if (!ring) return garbage(ring.error().message);
  patience_.reset();
  met(std::move(*ring));
  if (places_) share_memory_over_channel();
  begin();
}

// The calls may come.
void HostLink::begin() {
  stream_.host_attached(attach_.lived_on, around_.loop->now());
  arm();
}

void HostLink::share_memory(UniqueFd socket) {
  if (!greeted_) return garbage("it came to shared memory before its greeting");
  places_.emplace(std::move(socket));
  if (!patience_) share_memory_over_channel();  // else when the ring has come
}

void HostLink::share_memory_over_channel() {
  channel_->share(&*places_);
  channel_->send(MemoryNews{around_.generation, {}, {}});  // names may come
  places_->begin();
}

// Where the input of a transform is to lie for its plugin.
void HostLink::send_call(Call call) {
  const HookInfo* hook = find_hook(call.hook);
  if (lender_ && hook != nullptr && hook->kind == HookKind::kTransform && !call.batch.empty()) {
    const Status lent = lender_->lend(call);
    if (!lent && !std::exchange(complained_, true))
      spdlog::warn("batches of {} go through host memory: {}", name(), lent.error().message);
  }
  const auto on_gpu = [](const Tensor& tensor) { return tensor.bytes.device != nullptr; };
  if (std::ranges::any_of(call.batch, on_gpu)) {
    call.batch = in_host_memory(std::move(call.batch));
    if (around_.arena != nullptr) share(*around_.arena, call.batch);
  }
  to_host(call, call.seq);
}

// `seq`: the call whose reply gives back what the message names.
void HostLink::to_host(const Message& message, Seq seq) {
  if (!channel_) return;
  if (places_) {
    const MemoryNews news{around_.generation, places_->take_unused(), places_->take_gone()};
    if (news.any()) channel_->send(news);
  }
  channel_->send(message);
  if (!places_) return;
  std::vector<Place> named = places_->take_named();
  if (named.empty()) return;
  std::vector<Place>& lent = lent_[seq];
  lent.insert(lent.end(), named.begin(), named.end());
}

// With its reply a call gives back what it was lent, but for what its plugin
// goes on looking at.
bool HostLink::settle_loans(const Reply& reply) {
  auto lent = lent_.extract(reply.seq);
  if (lent.empty()) return reply.held.empty();
  for (const Place& held : reply.held) {
    const auto found = std::ranges::find(lent.mapped(), held);
    if (found == lent.mapped().end()) return false;
    lent.mapped().erase(found);
  }
  return places_->given_back(lent.mapped()).ok();
}

// What is checked before it is used must not change in between, and the memory
// of a host is its own to write to.  A picture may hold any bytes.
void HostLink::take_over(Batch& output) {
  for (Tensor& tensor : output) {
    const bool is_float = tensor.dtype >= DType::kFloat16;
    const bool is_picture = tensor.dtype == DType::kUInt8 && tensor.shape.size() > 2;
    if (tensor.bytes.segment != nullptr && !is_float && !is_picture)
      tensor.bytes = own_copy(*around_.arena, tensor.bytes);
  }
}

void HostLink::hang_up() {
  channel_.reset();
  listener_.reset();
  ring_door_.reset();
  memory_door_.reset();
  patience_.reset();
  places_.reset();
  lent_.clear();
  quarantine();
  greeted_ = false;
}

// What an ended process was lent is used again when its GPU work is surely over.
void HostLink::quarantine() {
  if (!lender_) return;
  for (auto& block : lender_->leave()) quarantined_.push_back(std::move(block));
  lender_.reset();
  quarantine_ = around_.loop->call_after(kQuarantine, [this] {
    for (auto& block : std::exchange(quarantined_, {})) around_.device->put_back(std::move(block));
  });
}

void HostLink::met(std::unique_ptr<Channel> channel) {
  channel_ = std::move(channel);
  channel_->start({[this](Message message) { on_message(std::move(message)); },
                   [this](Error error) {
                     // A host that goes away is the coordinator's to notice.
                     if (error.code != ErrorCode::kMalformed) return;
                     stream_.garbage("it sent something malformed: " + error.message, around_.loop->now());
                   }});
}

void HostLink::on_message(Message message) {
  if (generation_of(message) != attach_.host_generation) {  // the one place where stale frames end
    ++stale_;
    return;
  }
  if (!greeted_) {
    if (const Hello* hello = std::get_if<Hello>(&message)) return greet(*hello);
    return garbage("it sent " + std::string(type_of(message)) + " before its greeting");
  }
  mark_->unlink();  // it is in a call or was: it has the file
  const TimePoint now = around_.loop->now();
  if (Reply* reply = std::get_if<Reply>(&message)) {
    make_readable(*reply);
    if (lender_) {
      const Status taken = lender_->take(*reply, route().config.check_finite);
      const bool is_lie = !taken && taken.error().code == ErrorCode::kMalformed;
      CHECK(taken.ok() || is_lie, taken.error().message);  // a rank whose own GPU fails it cannot go on
      if (is_lie) return garbage(taken.error().message);
    } else if (!reply->in_region.empty()) {
      return garbage("its output lies in a region that it was not lent");
    }
    if (!settle_loans(*reply)) return garbage("it holds memory that it was not given");
    take_over(reply->batch);
    stream_.on_reply(std::move(*reply), now);
  } else if (Note* note = std::get_if<Note>(&message)) {
    note->text = readable(note->text);
    stream_.on_note(std::move(*note));
  } else if (Ask* question = std::get_if<Ask>(&message)) {
    stream_.on_ask(std::move(*question), now);
  } else if (const Progress* progress = std::get_if<Progress>(&message)) {
    stream_.on_progress(*progress, now);
  } else if (MemoryNews* news = std::get_if<MemoryNews>(&message); news != nullptr && places_) {
    places_->gone(news->gone);
    if (lender_)
      std::erase_if(news->unused, [this](const Place& place) { return lender_->given_back(place); });
    if (Status known = places_->given_back(news->unused); !known) return garbage(known.error().message);
  } else {
    return garbage("it sent " + std::string(type_of(message)) + ", which a host never sends here");
  }
  arm();
}

void HostLink::greet(const Hello& hello) {
  std::string reason = refusal(hello, around_.secret);
  if (reason.empty() && hello.plugin != route().plugin) reason = "another plugin was expected here";
  if (!reason.empty()) {
    channel_->send(Refuse{around_.generation, reason});
    return garbage(reason);
  }
  greeted_ = true;
  const Welcome welcome{around_.generation, std::min(kProtocolMax, hello.version_max), agreed(hello)};
  channel_->send(welcome);
  const auto is_gpu = [](const std::string& agreed) { return agreed.starts_with(kDevice); };
  if (std::ranges::any_of(welcome.capabilities, is_gpu)) lender_.emplace(*around_.device);
  if (std::ranges::count(welcome.capabilities, kRing) == 0) return begin();
  patience_ = around_.loop->call_after(kRingPatience, [this] { garbage("it did not come to the ring"); });
}

void HostLink::lost(const HostLost& lost) {
  if (lost.restarting && lost.host_generation != attach_.host_generation)
    return;  // never got as far as this rank
  deadline_.reset();
  hang_up();
  // Garbage is found in the oldest call, when the host may have begun another.
  const bool garbled = lost.reason.starts_with("garbage");
  HostPost post =
      stream_.host_lost(lost.restarting, lost.reason, mark_ && !garbled ? mark_->last() : std::nullopt);
  mark_.reset();
  post.generation = around_.generation;
  post.host_generation = lost.host_generation;
  around_.tell_coordinator(std::move(post));
}

Seq HostLink::submit(std::string_view hook, CallContext context, std::optional<Batch> input,
                     std::size_t bytes, std::function<Batch()> again) {
  context.call_id = name() + "/" + std::to_string(context.rank.value_or(around_.rank)) + "/" +
                    std::to_string(stream_.last_seq().next().value);
  if (input && around_.arena != nullptr) share(*around_.arena, *input);
  const Seq seq = stream_.submit(hook, std::move(context), around_.loop->now(), std::move(input), bytes,
                                 std::move(again));
  arm();
  return seq;
}

void HostLink::supply(Seq seq, Batch input) {
  if (around_.arena != nullptr) share(*around_.arena, input);
  stream_.supply(seq, std::move(input), around_.loop->now());
  arm();
}

void HostLink::want(Seq seq) { stream_.want(seq); }

void HostLink::snapshot() {
  stream_.snapshot(around_.loop->now());
  arm();
}

void HostLink::garbage(const std::string& reason) {
  HostFault fault;
  fault.generation = around_.generation;
  fault.plugin = route().plugin;
  fault.host_generation = attach_.host_generation;
  fault.kind = "garbage";
  fault.reason = reason;
  around_.tell_coordinator(std::move(fault));
}

void HostLink::arm() {
  const TimePoint due = stream_.next_deadline();
  if (due == TimePoint::max()) return deadline_.reset();
  deadline_ = around_.loop->call_at(due, [this] {
    stream_.on_tick(around_.loop->now());
    arm();
  });
}

}  // namespace bulkhead
