// The stream of calls to one plugin process: order, journal, retry, poison,
// giving up (protocol/README.md, "The stream of a plugin process").
//
// No socket, no thread, no clock: the owner says what happened and what time
// it is, and carries out the effects.  It decides nothing about processes.
// Used on the loop thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "output_check.h"
#include "protocol/clock.h"
#include "protocol/hooks.h"
#include "protocol/messages.h"

namespace bulkhead {

// How a call ended for the one who waits for it.
struct Outcome {
  enum class Kind {
    kAnswer,   // the plugin replied
    kError,    // it raised, or its output was refused
    kPoison,   // the input killed it twice
    kGivenUp,  // the plugin's policy gave it up
  };
  Kind kind = Kind::kAnswer;
  Control control;
  Batch batch;                // transforms: what to train on, the input where the plugin failed; data set
                              // stage: the reply, unchecked
  bool skip = false;          // transforms: on_poison: skip
  bool abort = false;         // on_poison: abort
  bool fatal = false;         // kError: one of the class's `raises`, it ends the run
  std::optional<Blob> state;  // state_dict
  Batch weights;              // ctx.load_weights
  bool saw_weights = false;   // it asked for them: the journal holds a copy until the next snapshot
  std::string reason;         // of anything but kAnswer: one sentence
  std::vector<Note> notes;
};

// What a plugin asks for in the middle of a call.
struct AskRequest {
  Seq seq;
  std::int64_t position = 0;  // of the call among the plugin's own: the same on every rank
  std::int64_t number = 0;
  std::string what;  // all_gather | weights
  std::string hook;
  std::int64_t step = 0;
  Batch batch;
};

struct StreamOptions {
  std::size_t credits = 16;                            // calls under way …
  std::size_t credit_bytes = std::size_t{256} << 20;   // … and what their inputs weigh; one may always go
  std::size_t journal_calls = 256;                     // then a snapshot is taken …
  std::size_t journal_bytes = std::size_t{256} << 20;  // … or then
  std::size_t observer_queue = 1024;                   // steers = False: calls waiting
  int kills_to_poison = 2;
  bool lengths_vary = false;  // batches of rows: an output need not have the shape of the last good one
};

class PluginStream {
 public:
  // What the stream wants done.  None may call back into the stream, but `ask`
  // may answer at once.
  struct Effects {
    std::function<void(Call)> send;                                    // generation is filled in by the owner
    std::function<void(Seq, Outcome)> settle;                          // once per wanted call
    std::function<void()> ready;                                       // opening and replay done
    std::function<void(HostFault)> fault;                              // please end this incarnation
    std::function<void(const Call&, const std::string&)> dead_letter;  // poison input, with the reason
    std::function<void(std::string event, Value fields)> event;
    std::function<void(AskRequest)> ask;  // answered() follows, once
    std::function<void(Answer)> answer;   // to the host; generation is filled in by the owner
    std::function<void(std::int64_t position, bool gone)>
        over;  // the call has ended; gone: without its plugin
  };
  // Of a position: a call not made yet, one under way, one that has ended.
  enum class Standing { kAhead, kUnderWay, kOver };

  PluginStream(PluginRoute route, StreamOptions options, Effects effects);

  // Before the first host: what a checkpoint holds for this plugin.
  void restore(Blob state) { snapshot_ = std::move(state); }
  // A resumed run goes on numbering where the checkpoint stopped.
  void continue_after(Seq last) { last_seq_ = last; }
  Seq last_seq() const { return last_seq_; }

  // ----- The rank's side -----
  // Puts a call at the end of the stream.  A transform whose input is still
  // being made by the plugin before it is submitted without and gets it later;
  // the stream waits at that place.
  // `bytes` is what the input weighs in the journal; for one that comes later,
  // a size that depends on the step alone.  `again`, where it is there, makes
  // the input anew, the same bytes: then the plugin may change it where it lies,
  // if that is in memory that it may write to.
  Seq submit(std::string_view hook, CallContext context, TimePoint now, std::optional<Batch> input = {},
             std::size_t bytes = 0, std::function<Batch()> again = {});
  void supply(Seq seq, Batch input, TimePoint now);
  // Somebody takes the result: settle() follows, now or when it is there.
  void want(Seq seq);
  // A snapshot at this place of the stream.
  void snapshot(TimePoint now);
  Standing standing(std::int64_t position) const;
  // From an agreed step on: nobody calls this plugin any more.
  void retire() { retired_ = true; }
  bool retired() const { return retired_; }

  // ----- The host's side -----
  void host_attached(bool lived_on, TimePoint now);
  // Charges the call it was in and returns that call's record for the report.
  // `begun`: the call that the host says it began last; without, the oldest
  // under way is taken for it.
  HostPost host_lost(bool restarting, const std::string& reason, std::optional<Seq> begun = {});
  // What came is no message.
  void garbage(const std::string& reason, TimePoint now) { fault("garbage", reason, now); }
  void on_reply(Reply reply, TimePoint now);
  void on_note(Note note);
  void on_progress(const Progress& progress, TimePoint now);
  void on_ask(Ask ask, TimePoint now);
  // What an AskRequest was for; kept with the call, for its retry and replay.
  void answered(Seq seq, std::int64_t number, std::optional<Failure> failure, Batch batch, TimePoint now);
  void on_tick(TimePoint now);
  // When on_tick has something to do; TimePoint::max() when nothing is due.
  TimePoint next_deadline() const;

  bool is_ready() const { return host_ == Host::kServing || host_ == Host::kGivenUp; }
  bool given_up() const { return host_ == Host::kGivenUp; }
  const PluginRoute& route() const { return route_; }
  PluginReport report() const;

 private:
  enum class Host { kAbsent, kOpening, kServing, kGivenUp };
  enum class State { kQueued, kReplied, kConsumed };

  struct Entry {
    Call call;
    const HookInfo* hook = nullptr;
    bool awaits_input = false;
    bool wanted = false;
    bool own = false;       // a snapshot that the stream itself asked for
    bool accepted = false;  // before a snapshot that has arrived: never sent again
    bool sent_before = false;
    bool buried = false;  // poison: never sent again, also not as a replay
    State state = State::kQueued;
    int kills = 0;
    std::int64_t position = 0;
    std::function<Batch()> again;  // makes call.batch anew, which a host may have changed once it was sent
    std::vector<Answer> answers;   // by number
    std::string asking;            // what the next one is for, while it is being made
    bool saw_weights = false;
    Outcome outcome;
  };

  struct Flight {
    Seq seq;  // 0: a call of the opening
    std::string hook;
    bool replay = false;
    TimePoint sent;
    TimePoint begun;  // what the deadline counts from
    Duration deadline{};
    std::int64_t step = -1;
    std::size_t bytes = 0;
    bool asking = false;  // the host waits for an answer: the deadline rests
    std::vector<Note> notes;
  };

  void open_next(TimePoint now);
  void opening_reply(const Reply& reply, TimePoint now);
  void pump(TimePoint now);
  bool replaying() const;
  bool has_credit(const Batch& input) const;
  void send(Call call, const HookInfo& hook, bool replay, TimePoint now);
  static Batch input_of(const Entry& entry);
  void keep_input(const Entry& entry, const std::string& reason);
  void entry_reply(Entry& entry, Reply reply, std::vector<Note> notes);
  // False when the output was refused, and the call settled so.
  bool transform_reply(Entry& entry, Reply& reply);
  void accept_snapshot(Seq seq);
  void deliver(Entry& entry);
  void trim();
  void maybe_snapshot(TimePoint now);
  void push(Entry entry);
  void refuse_ask(const Ask& ask, std::string sentence);
  const Flight* guilty(std::optional<Seq> begun) const;
  void settle_failed(Entry& entry, Outcome::Kind kind, std::string reason);
  void give_up(const std::string& reason);
  void fault(std::string kind, std::string reason, TimePoint now);
  Duration deadline_of(const HookInfo& hook) const;
  Entry* find(Seq seq);

  PluginRoute route_;
  StreamOptions options_;
  Effects effects_;
  bool stateful_;
  bool observer_;
  // After a death, or where the first one is the last: one call under way at a
  // time.  The next death is then charged to the call that caused it, and a
  // plugin is given up at a place that does not depend on timing.
  bool cautious_;

  Host host_ = Host::kAbsent;
  bool faulted_ = false;     // its end has been asked for: it is not listened to
  bool was_ready_ = false;   // in some incarnation
  bool said_ready_ = false;  // in this one
  std::vector<std::string> opening_;
  std::size_t opened_ = 0;
  TimePoint opening_deadline_ = TimePoint::max();
  bool retired_ = false;

  Seq last_seq_{0};
  std::int64_t positions_ = 0;
  CallContext last_context_;
  std::deque<Entry> entries_;
  std::size_t cursor_ = 0;  // entries_ before it are sent to this incarnation
  std::deque<Flight> flights_;
  TimePoint last_reply_{};
  std::optional<Blob> snapshot_;
  std::size_t calls_since_snapshot_ = 0;
  std::size_t bytes_since_snapshot_ = 0;
  std::map<std::string, GoodOutputs> good_outputs_;  // by hook
  std::string give_up_reason_;

  PluginReport report_;
  std::vector<float> latencies_us_;  // the newest 4096
  std::size_t latency_at_ = 0;
};

}  // namespace bulkhead
