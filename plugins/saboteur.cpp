// Saboteur: does a chosen harm at a chosen hook, step and rank.  The tool of
// tests and of the quickstart; saboteur.py takes the same arguments.
//
//   with: {how: segv,           # segv abort kill exit0 exit3 terminate: the process ends
//                               # hang stop: it answers no more (stop: SIGSTOP to itself)
//                               # raise (or throw): an exception
//                               # garbage: bytes that are no message, on every connection
//                               # nan wrong_shape wrong_type: a bad batch (transform_*_batch only)
//          hook: on_step_end,   # any hook, or __init__
//          step: 0,             # ctx.global_step, one or a list, -1 = any; state hooks: of the call
//                               # before; __init__: not looked at
//          rank: 0,             # ctx.rank, -1 = every rank
//          micro: 0,            # ctx.micro_batch, -1 = any; looked at in the hooks of one micro-batch
//          ask: false,          # true: the hook first gathers from all ranks, then harms
//          times: 1}            # for each hook, step and rank, over all restarts of this process
//
// Deaths are counted in files under <run_dir>/saboteur, since memory is lost
// with the process.  To show that nothing else is lost, it also keeps a counter
// of its calls (and of what it gathered) as state, and swaps the first two
// elements of each row of a batch when the counter is odd: equal weights prove an
// exact replay.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>

#include "bulkhead/plugin.h"

namespace {

namespace fs = std::filesystem;
using bulkhead::Batch;
using bulkhead::Context;

const std::vector<std::string> kHarms{"segv", "abort", "kill",    "exit0", "exit3",       "terminate", "hang",
                                      "stop", "raise", "garbage", "nan",   "wrong_shape", "wrong_type"};

// Called once for each micro-batch or sample of it.
bool is_of_micro_batch(std::string_view hook) {
  return hook.starts_with("transform_") || hook == "preprocess" || hook == "keep" ||
         hook == "on_backward_end" || hook == "on_substep_end" || hook == "on_validate_step_end" ||
         hook == "on_test_step_end";
}

// All ranks call it together, so that they can gather.
bool may_ask(std::string_view hook) {
  return hook != "on_exception" && (hook.starts_with("on_") || hook == "should_stop");
}

// They are about a batch, so they need one.
bool is_lie(const std::string& how) { return how == "nan" || how.starts_with("wrong_"); }

[[noreturn]] void wait_for_ever() {
  for (;;) ::pause();
}

void segv() {
  std::signal(SIGSEGV, SIG_DFL);  // also where a sanitizer has its own handler
  std::raise(SIGSEGV);
}

// A well-framed ZMTP frame (RFC 23: flags, size, body) whose body no msgpack
// decoder takes, so that the peer sees a malformed message at once.
void write_garbage() {
  constexpr unsigned char kFrame[] = {0x00, 0x08, 0xc1, 0xc1, 0xc1, 0xc1, 0xde, 0xad, 0xbe, 0xef};
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    const int fd = std::atoi(entry.path().filename().c_str());
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) continue;  // no connected socket
    [[maybe_unused]] const ssize_t sent = ::send(fd, kFrame, sizeof kFrame, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

// Harm that needs no batch.  Returns where the hook goes on.
void harm(const std::string& how) {
  if (how == "segv") segv();
  if (how == "abort") std::abort();
  if (how == "kill") ::kill(::getpid(), SIGKILL);
  if (how == "exit0") std::exit(0);
  if (how == "exit3") std::exit(3);
  if (how == "terminate") std::terminate();
  if (how == "hang") wait_for_ever();
  if (how == "stop") ::kill(::getpid(), SIGSTOP);
  if (how == "raise") throw std::runtime_error("the saboteur was asked to raise");
  if (how == "garbage") write_garbage();
}

// The tensor that is tampered with.
std::string main_tensor(const Batch& batch) {
  for (const char* name : {"input_ids", "features", "images"}) {
    if (batch.has(name)) return name;
  }
  return {};
}

// Calls work(view) with the tensor as what it is; other types are left alone.
template <class Work>
void with_view(Batch& batch, const std::string& name, const Work& work) {
  if (batch.dtype(name) == bulkhead::DType::kInt64) work(batch.mutable_view<std::int64_t>(name));
  if (batch.dtype(name) == bulkhead::DType::kFloat32) work(batch.mutable_view<float>(name));
}

void swap_first_two(Batch& batch) {
  const std::string name = main_tensor(batch);
  if (name.empty() || batch.shape(name).empty()) return;
  with_view(batch, name, [](const auto& view) {
    const auto row = static_cast<std::size_t>(view.shape().back());
    const auto values = view.flat();
    for (std::size_t at = 0; row >= 2 && at < values.size(); at += row) std::swap(values[at], values[at + 1]);
  });
}

void spoil(Batch& batch, const std::string& how) {
  const std::string name = main_tensor(batch);
  if (name.empty()) return;
  if (how == "wrong_shape") {
    bulkhead::Shape longer = batch.shape(name);
    longer.push_back(3);
    if (batch.dtype(name) == bulkhead::DType::kInt64) batch.add<std::int64_t>(name, longer);
    if (batch.dtype(name) == bulkhead::DType::kFloat32) batch.add<float>(name, longer);
  }
  if (how == "wrong_type") batch.add<double>(name, bulkhead::Shape(batch.shape(name)));
  if (how == "nan" && batch.dtype(name) == bulkhead::DType::kFloat32) {
    std::ranges::fill(batch.mutable_view<float>(name).flat(), std::numeric_limits<float>::quiet_NaN());
  }
}

struct Saboteur : bulkhead::Plugin {
  explicit Saboteur(const bulkhead::Options& with)
      : how_(with.get("how", "segv")),
        hook_(with.get("hook", "on_step_end")),
        steps_(with.get<std::vector<std::int64_t>>("step", {0})),
        rank_(with.get<std::int64_t>("rank", 0)),
        micro_(with.get<std::int64_t>("micro", 0)),
        ask_(with.get("ask", false)),
        times_(with.get<std::int64_t>("times", 1)),
        facts_(with.facts()) {
    if (how_ == "throw") how_ = "raise";
    if (std::ranges::find(kHarms, how_) == kHarms.end()) {
      std::string known;
      for (const std::string& harm : kHarms) known += (known.empty() ? "" : ", ") + harm;
      with.reject("how", "must be one of " + known + ", not \"" + how_ + "\"");
    }
    const auto& hooks = bulkhead::entry::kHookNames;
    const bool of_one_plugin = hook_ == "encode" || hook_ == "collate";
    if (hook_ != "__init__" && (of_one_plugin || std::ranges::find(hooks, hook_) == hooks.end())) {
      with.reject("hook", "must be a hook but encode and collate, or __init__, not \"" + hook_ + "\"");
    }
    if (is_lie(how_) && !(hook_.starts_with("transform_") && hook_.ends_with("_batch"))) {
      with.reject("how", "is " + how_ + ", which needs hook: transform_train_batch, not " + hook_);
    }
    if (ask_ && !may_ask(hook_))
      with.reject("ask", "needs a hook that all ranks call together, not " + hook_);
    if (hook_ == "__init__") at("__init__", 0, facts_.rank);
  }

  bulkhead::Changes configure(const bulkhead::Config&, Context& ctx) override {
    at("configure", 0, ctx.rank);
    return {};
  }
  void setup(Context& ctx) override { on("setup", ctx); }
  void on_train_start(Context& ctx) override { on("on_train_start", ctx); }
  void on_train_end(Context& ctx) override { on("on_train_end", ctx); }
  void on_epoch_start(Context& ctx) override { on("on_epoch_start", ctx); }
  void on_epoch_end(Context& ctx) override { on("on_epoch_end", ctx); }
  void on_exception(Context& ctx) override { on("on_exception", ctx); }
  void on_step_start(Context& ctx) override { on("on_step_start", ctx); }
  void on_backward_end(Context& ctx) override { on("on_backward_end", ctx); }
  void on_substep_end(Context& ctx) override { on("on_substep_end", ctx); }
  void on_optimizer_step_start(Context& ctx) override { on("on_optimizer_step_start", ctx); }
  void on_optimizer_step_end(Context& ctx) override { on("on_optimizer_step_end", ctx); }
  void on_step_end(Context& ctx) override { on("on_step_end", ctx); }
  bool should_stop(Context& ctx) override { return on("should_stop", ctx), false; }
  void on_log(Context& ctx) override { on("on_log", ctx); }
  void on_validate_start(Context& ctx) override { on("on_validate_start", ctx); }
  void on_validate_step_end(Context& ctx) override { on("on_validate_step_end", ctx); }
  void on_validate_end(Context& ctx) override { on("on_validate_end", ctx); }
  void on_test_start(Context& ctx) override { on("on_test_start", ctx); }
  void on_test_step_end(Context& ctx) override { on("on_test_step_end", ctx); }
  void on_test_end(Context& ctx) override { on("on_test_end", ctx); }
  void on_save_start(Context& ctx) override { on("on_save_start", ctx); }
  void on_save_end(Context& ctx) override { on("on_save_end", ctx); }
  void on_load(Context& ctx) override { on("on_load", ctx); }

  bulkhead::Json preprocess(bulkhead::Json rows, Context& ctx) override {
    on("preprocess", ctx);
    return rows;
  }
  bool keep(const bulkhead::Json&, Context& ctx) override {
    on("keep", ctx);
    return true;
  }

  // Samples stay as they are: they must not depend on what came before.
  void transform_image(bulkhead::Image&, Context& ctx) override { on("transform_image", ctx); }
  std::string transform_caption(std::string caption, Context& ctx) override {
    on("transform_caption", ctx);
    return caption;
  }
  void transform_sample(bulkhead::Sample&, Context& ctx) override { on("transform_sample", ctx); }

  void transform_train_batch(Batch& batch, Context& ctx) override {
    change("transform_train_batch", batch, ctx);
  }
  void transform_validate_batch(Batch& batch, Context& ctx) override {
    change("transform_validate_batch", batch, ctx);
  }
  void transform_test_batch(Batch& batch, Context& ctx) override {
    change("transform_test_batch", batch, ctx);
  }

  std::string state_dict() override {
    at("state_dict", step_, facts_.rank);
    return std::to_string(counter_);
  }
  void load_state_dict(std::string_view state) override {
    counter_ = std::stoll(std::string(state));
    at("load_state_dict", step_, facts_.rank);
  }

 private:
  // Every hook that has a ctx; true when the harm was done and the hook lives on.
  bool on(const std::string& hook, Context& ctx) {
    step_ = ctx.global_step;
    ++counter_;
    if (hook != hook_ || !is_step(step_)) return false;
    if (is_of_micro_batch(hook) && micro_ >= 0 && ctx.micro_batch != micro_) return false;
    if (ask_) gather(ctx);
    return at(hook, step_, ctx.rank);
  }

  void change(const std::string& hook, Batch& batch, Context& ctx) {
    if (counter_ % 2 == 1) swap_first_two(batch);
    if (on(hook, ctx)) spoil(batch, how_);
  }

  // On every rank alike, whoever is to be harmed; what came is state.
  void gather(Context& ctx) {
    for (const auto& part : ctx.all_gather(std::to_string(ctx.rank + 1)))
      counter_ += part ? std::stoll(*part) : 0;
  }

  bool is_step(std::int64_t step) const {
    return std::ranges::find(steps_, -1) != steps_.end() || std::ranges::find(steps_, step) != steps_.end();
  }

  // Does the harm when this is the place; true when it was and the hook lives on.
  bool at(const std::string& hook, std::int64_t step, std::int64_t rank) {
    if (hook != hook_ || (rank_ >= 0 && rank != rank_)) return false;
    if (hook != "__init__" && !is_step(step)) return false;
    if (!count_down(step, rank)) return false;
    harm(how_);
    return true;
  }

  // One more death at this coordinate, on record before it happens; false when
  // there were enough.
  bool count_down(std::int64_t step, std::int64_t rank) const {
    const fs::path folder = fs::path(facts_.run_dir) / "saboteur";
    fs::create_directories(folder);
    const fs::path mark =
        folder / (facts_.plugin + "-" + std::to_string(rank) + "-" + hook_ + "-" + std::to_string(step));
    std::error_code none_yet;
    const auto deaths = fs::file_size(mark, none_yet);
    if ((none_yet ? 0 : static_cast<std::int64_t>(deaths)) >= times_) return false;
    std::ofstream file(mark, std::ios::app);
    file << '!' << std::flush;
    if (!file) throw std::runtime_error("cannot write " + mark.string());
    return true;
  }

  std::string how_;
  std::string hook_;
  std::vector<std::int64_t> steps_;
  std::int64_t rank_;
  std::int64_t micro_;
  bool ask_;
  std::int64_t times_;
  bulkhead::Facts facts_;
  std::int64_t step_ = 0;  // of the last call that had one
  std::int64_t counter_ = 0;
};

}  // namespace

BULKHEAD_PLUGIN(Saboteur)
