// One plugin, found, checked and constructed, as a function from Call to Reply.
//
// No socket and no timer: what goes out in the middle of a call (notes,
// progress, questions) is passed to its CallLine.  Used on the host's one thread.
#pragma once

#include <memory>
#include <variant>

#include "abi_arguments.h"
#include "hook_answer.h"
#include "plugin_library.h"
#include "protocol/clock.h"
#include "protocol/messages.h"

namespace bulkhead {

class HookRunner {
 public:
  using Loading = std::variant<std::unique_ptr<HookRunner>, LoadFailed>;

  // Loads the library named by `load`, checks it against the run file's entry
  // and constructs the plugin, seeded as hook __init__.  `generation` is this
  // process's own.
  static Loading load(const Load& load, Generation generation, const Clock& clock = steady_clock());

  // Runs the plugin's destructor.
  ~HookRunner();
  HookRunner(const HookRunner&) = delete;
  HookRunner& operator=(const HookRunner&) = delete;

  const PluginTraits& traits() const { return traits_; }

  // Seeds ctx.rng and calls the hook; a sample hook once for each sample, keep and
  // encode once for each row.  Never throws: an exception of the plugin's is a Reply with a failure.
  Reply run(const Call& call, const CallLine& line);

  // Asks the plugin for its changes to `config`, seeded as hook configure.  What
  // it logs goes to this process's own log.
  Configured configure(const Value& config);

 private:
  HookRunner(PluginLibrary library, const Load& load, Generation generation, const Clock& clock);
  bool construct(const Value& with, LoadFailed& failed);
  Reply answer(const Call& call, const AbiFacts& facts, const CallLine& line);
  Reply run_once(const Call& call, const AbiFacts& facts, const CallLine& line);
  Reply run_samples(const Call& call, const AbiFacts& facts, const CallLine& line);
  Reply run_preprocess(const Call& call, const AbiFacts& facts, const CallLine& line);
  Reply run_rows(const Call& call, const AbiFacts& facts, const CallLine& line);
  Reply run_collate(const Call& call, const AbiFacts& facts, const CallLine& line);
  Reply failed(const Call& call, const CallLine& line, std::string type, std::string sentence) const;
  HookAnswer::About about(const Call& call) const;

  PluginLibrary library_;
  Facts facts_;
  AbiFacts abi_facts_;  // points into facts_
  Generation generation_;
  const Clock& clock_;
  PluginTraits traits_;
  void* plugin_ = nullptr;
};

}  // namespace bulkhead
