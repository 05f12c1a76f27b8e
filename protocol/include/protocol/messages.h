// The whole vocabulary of the wire, as plain values.  README.md in this
// directory says who sends what when; the headers below say what each holds.
//
// visit() names the fields in wire order; the codec goes by it.  Every message
// carries the generation of its sender's incarnation; a receiver drops older
// ones in one place (the channel's owner).
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "protocol/host_messages.h"
#include "protocol/relay_messages.h"
#include "protocol/worker_messages.h"

namespace bulkhead {

using Message =
    std::variant<Hello, Welcome, Refuse, Load, Loaded, LoadFailed, Configure, Configured, Attach, Call, Reply,
                 Progress, Note, Ask, Answer, StartWorker, StoreReady, AttachHost, HostReady, HostFault,
                 HostLost, HostPost, GatherPart, GatherWanted, GatherDone, RelayCall, RelaySupply, RelayWant,
                 RelayOutcome, MetricsLine, EventLine, Stop, WorkerDone, Heartbeat, MemoryNews, CpuUse>;

Generation generation_of(const Message& message);
std::string_view type_of(const Message& message);

// What a Hello must say to be let in; an empty string, or the sentence for
// Refuse.
std::string refusal(const Hello& hello, std::string_view expected_secret);

}  // namespace bulkhead
