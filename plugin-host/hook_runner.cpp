#include "hook_runner.h"

#include <algorithm>
#include <chrono>
#include <string_view>
#include <unistd.h>
#include <utility>

#include "clean_text.h"
#include "protocol/hooks.h"
#include "protocol/log.h"
#include "protocol/rng.h"

namespace bulkhead {
namespace {

constexpr std::string_view kConstructor = "__init__";  // as hook, for the seed

LoadFailed failed_at(Generation generation, std::string stage, std::string key, std::string type,
                     std::string sentence) {
  return {generation, std::move(stage), std::move(key), {std::move(type), std::move(sentence), {}}};
}

const char* stage_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnavailable:
      return "find";
    case ErrorCode::kMismatch:
      return "check";
    default:
      return "import";
  }
}

PluginTraits traits_of(const PluginLibrary& library) {
  const abi::Table& table = library.table();
  PluginTraits traits;
  for (std::size_t i = 0; i < table.hook_count; ++i) traits.hooks.emplace_back(abi::view(table.hooks[i]));
  for (std::size_t i = 0; i < table.claim_count; ++i) traits.claims.emplace_back(abi::view(table.claims[i]));
  traits.steers = table.steers != 0;
  traits.stateless = table.stateless != 0;
  traits.seeded = table.seeded != 0;
  traits.stateful = traits.has("state_dict");
  traits.class_name = abi::view(table.class_name);
  traits.checksum = library.checksum();
  traits.language = "c++ " + clean_text(library.compiler());
  traits.pid = ::getpid();
  return traits;
}

// What is wrong with the plugin as such; empty when nothing is.
std::string objection(const PluginTraits& traits, const PluginConfig& config) {
  if (!config.class_name.empty() && config.class_name != traits.class_name) {
    return config.file + " has no class " + config.class_name + "; it has " + traits.class_name;
  }
  for (const std::string& hook : traits.hooks) {
    if (find_hook(hook) == nullptr) {
      return traits.class_name + " overrides " + hook +
             ", which this bulkhead does not have; rebuild the plugin";
    }
  }
  return {};
}

// Whose call it is, where several ranks share this process.
Facts facts_of(const Facts& own, const CallContext& context) {
  Facts facts = own;
  facts.rank = context.rank.value_or(own.rank);
  facts.local_rank = context.local_rank.value_or(own.local_rank);
  facts.is_main = facts.rank == 0;
  if (!context.device.empty()) {
    facts.device = context.device;
    facts.map_loc = {{"cuda:0", context.device}};
  }
  return facts;
}

void to_own_log(const Message& message) {
  if (const auto* note = std::get_if<Note>(&message)) {
    if (!note->text.empty()) spdlog::info("{}", note->text);
    for (const auto& [name, value] : note->metrics) spdlog::info("{} = {}", name, value);
  }
}

// Before there is a rank.
const CallLine& own_log() {
  static const CallLine kLine{to_own_log, nullptr};
  return kLine;
}

std::string with_nearest(const HookAnswer::Refusal& refusal) {
  const std::string nearest = nearest_name(refusal.key, refusal.candidates);
  return nearest.empty() ? refusal.sentence : refusal.sentence + "; did you mean \"" + nearest + "\"?";
}

}  // namespace

HookRunner::Loading HookRunner::load(const Load& load, Generation generation, const Clock& clock) {
  Result<PluginLibrary> library = PluginLibrary::open(load.config.file);
  if (!library) {
    return failed_at(generation, stage_of(library.error().code), "use", "ImportError",
                     library.error().message);
  }
  std::unique_ptr<HookRunner> runner(new HookRunner(std::move(*library), load, generation, clock));
  if (const std::string sentence = objection(runner->traits_, load.config); !sentence.empty()) {
    return failed_at(generation, "check", "use", "CheckError", sentence);
  }
  LoadFailed failed;
  if (!runner->construct(load.config.with, failed)) return failed;
  return runner;
}

HookRunner::HookRunner(PluginLibrary library, const Load& load, Generation generation, const Clock& clock)
    : library_(std::move(library)),
      facts_(load.facts),
      abi_facts_(facts_, generation),
      generation_(generation),
      clock_(clock),
      traits_(traits_of(library_)) {}

HookRunner::~HookRunner() {
  if (plugin_ != nullptr) library_.table().destroy(plugin_);
}

bool HookRunner::construct(const Value& with, LoadFailed& failed) {
  if (!with.is_object() && !with.is_null()) {
    failed = failed_at(generation_, "arguments", "with", "TypeError", "with must be a map of arguments");
    return false;
  }
  const Value arguments = with.is_null() ? Value::object() : with;
  const AbiValue abi_with(arguments);
  const Philox::Key key = call_key(facts_.run_seed, facts_.plugin, facts_.rank, kConstructor, 0, 0);
  HookAnswer answer({generation_, Seq{}, kConstructor, facts_.scope, traits_.steers}, own_log());
  plugin_ = library_.table().create(&abi_facts_.get(), &abi_with.root(), key.data(), &answer.host());
  if (plugin_ != nullptr) return true;
  if (const auto& refusal = answer.refusal()) {
    failed =
        failed_at(generation_, "arguments", "with." + refusal->key, "OptionError", with_nearest(*refusal));
  } else {
    failed = failed_at(generation_, "constructor", "", "unknown", "the constructor gave no plugin");
    if (auto failure = answer.take().failure) failed.failure = std::move(*failure);
  }
  return false;
}

HookAnswer::About HookRunner::about(const Call& call) const {
  return {generation_, call.seq, call.hook, facts_.scope, traits_.steers};
}

Reply HookRunner::run(const Call& call, const CallLine& line) {
  const TimePoint begin = clock_.now();
  const bool shared = call.context.rank || call.context.local_rank || !call.context.device.empty();
  const Facts facts = shared ? facts_of(facts_, call.context) : Facts{};
  const AbiFacts shared_facts(facts, generation_);
  const AbiFacts& abi_facts = shared ? shared_facts : abi_facts_;
  Reply reply = answer(call, abi_facts, line);
  reply.hook = call.hook;
  reply.seconds = std::chrono::duration<double>(clock_.now() - begin).count();
  return reply;
}

Reply HookRunner::answer(const Call& call, const AbiFacts& facts, const CallLine& line) {
  const HookInfo* hook = find_hook(call.hook);
  const HookKind kind = hook == nullptr ? HookKind::kNotify : hook->kind;
  if (kind == HookKind::kSample) return run_samples(call, facts, line);
  if (kind == HookKind::kCollate) return run_collate(call, facts, line);
  if (kind != HookKind::kRows) return run_once(call, facts, line);
  return call.hook == "preprocess" ? run_preprocess(call, facts, line) : run_rows(call, facts, line);
}

Reply HookRunner::run_once(const Call& call, const AbiFacts& facts, const CallLine& line) {
  const CallContext& context = call.context;
  const Philox::Key key = call_key(facts_.run_seed, facts_.plugin, call.seed_rank, call.hook,
                                   context.global_step, context.micro_batch);
  const AbiCall abi_call(call, key, line.device);
  HookAnswer answer(about(call), line);
  // Without state_dict there is no state, which is not the same as an empty one.
  if (call.hook != "state_dict" || traits_.stateful) {
    library_.table().call(plugin_, &facts.get(), &abi_call.get(), &answer.host());
  }
  return answer.take();
}

Configured HookRunner::configure(const Value& config) {
  Call call;
  call.hook = "configure";
  const AbiValue abi_config(config);
  const AbiCall abi_call(call, call_key(facts_.run_seed, facts_.plugin, facts_.rank, call.hook, 0, 0));
  abi::Call with_config = abi_call.get();
  with_config.config = &abi_config.root();
  HookAnswer answer(about(call), own_log());
  library_.table().call(plugin_, &abi_facts_.get(), &with_config, &answer.host());
  Configured configured;
  configured.generation = generation_;
  configured.changes = answer.changes();
  configured.failure = answer.take().failure;
  if (configured.failure) configured.changes = Value::object();
  return configured;
}

}  // namespace bulkhead
