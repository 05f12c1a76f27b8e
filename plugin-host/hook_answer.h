// Collects what a plugin says during one call (or its construction) into a
// Reply, and passes notes, progress and questions on at once.
//
// Trusts nothing that a plugin says: names, texts and tensors are cut or refused
// by the codec's limits here, so that encoding cannot fail.  Used on the host's
// one thread, by one call at a time.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "abi_arguments.h"
#include "bulkhead/abi.h"
#include "protocol/arena.h"
#include "protocol/messages.h"

namespace bulkhead {

using SendMessage = std::function<void(const Message&)>;
// Sends the question and waits.  Nothing: nobody waits for the call any more.
using AskRank = std::function<std::optional<Answer>(const Ask&)>;

// Memory that the rank reads too; nothing where there is none.
using AllocateShared = std::function<std::optional<Slot>(std::size_t bytes)>;

// Where a call's words go.
struct CallLine {
  SendMessage send;
  AskRank ask;
  AllocateShared allocate{};
  int device = -1;  // the GPU on which the batch of a transform lies
};

class HookAnswer {
 public:
  // Which call this is.
  struct About {
    Generation generation;  // the host's
    Seq seq;
    std::string_view hook;
    std::string_view scope;
    bool steers = true;
  };
  // An argument of the constructor is wrong.
  struct Refusal {
    std::string key;
    std::string sentence;
    std::vector<std::string> candidates;
  };

  // `line`, and the texts of `about`, must outlive it.
  HookAnswer(const About& about, const CallLine& line);
  HookAnswer(const HookAnswer&) = delete;
  HookAnswer& operator=(const HookAnswer&) = delete;

  // What the plugin is given to speak through.
  const abi::Host& host() const { return host_; }

  const std::optional<Refusal>& refusal() const { return refusal_; }
  // Sample hooks: the caption that it gave.
  const std::optional<std::string>& caption() const { return caption_; }
  // configure: the changes.
  const Value& changes() const { return changes_; }
  // preprocess: the columns.  keep: whether the row stays.  Nothing where it gave none.
  const std::optional<Value>& columns() const { return columns_; }
  const std::optional<bool>& verdict() const { return verdict_; }
  // encode: the row's ids and labels, of equal length.
  struct Tokens {
    std::vector<std::int64_t> input_ids;
    std::vector<std::int64_t> labels;
  };
  const std::optional<Tokens>& tokens() const { return tokens_; }

  // After the call; an answer with a failure holds nothing else.
  Reply take();

 private:
  void fill_results();
  void fill_questions();
  void fail(std::string type, std::string message, bool fatal = false);
  void put(const abi::Tensor& tensor, std::shared_ptr<void> owner);
  void put_piece(const abi::Tensor& tensor, std::string_view of, std::int64_t offset);
  Tensor checked(const abi::Tensor& tensor, std::shared_ptr<void> owner);
  std::map<std::string, double> metrics_of(const abi::Metric* metrics, std::size_t count);
  void take_caption(std::string_view text);
  void take_changes(const abi::Value& changes);
  void take_columns(const abi::Value& columns);
  void take_tokens(std::span<const std::int64_t> input_ids, std::span<const std::int64_t> labels);
  std::string set(std::string_view name, std::optional<double> value);
  abi::Answer ask(std::string_view what, std::string_view bytes);
  abi::Memory allocate(std::size_t bytes);
  // Kept until the call is over.
  abi::Text keep(std::string text);

  struct Kept {
    explicit Kept(Answer from) : answer(std::move(from)), tensors(answer.batch) {}
    Answer answer;
    AbiTensors tensors;
  };

  const About about_;
  const CallLine& line_;
  Reply reply_;
  std::optional<Refusal> refusal_;
  std::optional<std::string> caption_;
  Value changes_ = Value::object();
  std::optional<Value> columns_;
  std::optional<bool> verdict_;
  std::optional<Tokens> tokens_;
  std::int64_t questions_ = 0;
  std::deque<Kept> answers_;
  std::deque<std::string> texts_;
  std::vector<Slot> slots_;  // given to the plugin
  abi::Host host_;
};

}  // namespace bulkhead
