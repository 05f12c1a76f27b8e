// Collects what a plugin says during one call (or its construction) into a
// Reply, and passes notes and progress on at once.
//
// Trusts nothing that a plugin says: names, texts and tensors are cut or refused
// by the codec's limits here, so that encoding cannot fail.  Used on the host's
// one thread, by one call at a time.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bulkhead/abi.h"
#include "protocol/messages.h"

namespace bulkhead {

using SendMessage = std::function<void(const Message&)>;

class HookAnswer {
 public:
  // An argument of the constructor is wrong.
  struct Refusal {
    std::string key;
    std::string sentence;
    std::vector<std::string> candidates;
  };

  // `generation` and `seq` are those of the reply.  `send` must outlive it.
  HookAnswer(Generation generation, Seq seq, const SendMessage& send);
  HookAnswer(const HookAnswer&) = delete;
  HookAnswer& operator=(const HookAnswer&) = delete;

  // What the plugin is given to speak through.
  const abi::Host& host() const { return host_; }

  const std::optional<Refusal>& refusal() const { return refusal_; }

  // After the call; an answer with a failure holds nothing else.
  Reply take();

 private:
  void fail(std::string type, std::string message);
  void put(const abi::Tensor& tensor, std::shared_ptr<void> owner);
  Tensor checked(const abi::Tensor& tensor, std::shared_ptr<void> owner);
  std::map<std::string, double> metrics_of(const abi::Metric* metrics, std::size_t count);

  Reply reply_;
  std::optional<Refusal> refusal_;
  const SendMessage& send_;
  abi::Host host_;
};

}  // namespace bulkhead
