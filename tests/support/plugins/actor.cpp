// Writes down every call, as witness.py does, and does what its script says: the
// C++ side of actor.py beside this file, where the script is explained.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "witness_line.h"

namespace tests {

struct Expected : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A line of the script.
struct Act {
  std::string does, hook, step, rank, value;

  explicit Act(const std::string& line) {
    std::istringstream words(line);
    words >> does >> hook >> step >> rank;
    if (words.get() == ' ') std::getline(words, value);
  }
  bool is_at(std::string_view at, const bulkhead::Context& ctx) const {
    return hook == at && (step == "*" || step == std::to_string(ctx.global_step)) &&
           (rank == "*" || rank == std::to_string(ctx.rank));
  }
  std::string name() const { return value.substr(0, value.find('=')); }
  double number() const {
    const std::size_t equals = value.find('=');
    return std::stod(equals == std::string::npos ? value : value.substr(equals + 1));
  }
};

struct Actor : bulkhead::Plugin {
  using raises = bulkhead::Raises<Expected>;

  explicit Actor(const bulkhead::Options& with) : facts_(with.facts()) {
    for (const auto& line : with.get<std::vector<std::string>>("script", {})) script_.emplace_back(line);
  }

#define SEES(hook) \
  void hook(bulkhead::Context& ctx) override { see(#hook, ctx); }
  SEES(setup) SEES(on_train_start) SEES(on_train_end) SEES(on_epoch_start) SEES(on_epoch_end);
  SEES(on_step_start) SEES(on_backward_end) SEES(on_substep_end) SEES(on_step_end) SEES(on_log);
  SEES(on_optimizer_step_start) SEES(on_optimizer_step_end) SEES(on_load);
  SEES(on_validate_start) SEES(on_validate_step_end) SEES(on_validate_end);
  SEES(on_test_start) SEES(on_test_step_end) SEES(on_test_end) SEES(on_save_start) SEES(on_save_end);
#undef SEES

  bulkhead::Changes configure(const bulkhead::Config&, bulkhead::Context& ctx) override {
    see("configure", ctx);
    bulkhead::Changes changes;
    for (const Act* act : acts("change", "configure", ctx)) changes.set(act->name(), act->number());
    return changes;
  }
  bool should_stop(bulkhead::Context& ctx) override {
    see("should_stop", ctx);
    return !acts("yes", "should_stop", ctx).empty();
  }
  void on_exception(bulkhead::Context& ctx) override {
    see("on_exception", ctx, ", \"exception\": " + json(ctx.exception));
  }

  void transform_train_batch(bulkhead::Batch& batch, bulkhead::Context& ctx) override {
    transform("transform_train_batch", batch, ctx);
  }
  void transform_validate_batch(bulkhead::Batch& batch, bulkhead::Context& ctx) override {
    transform("transform_validate_batch", batch, ctx);
  }
  void transform_test_batch(bulkhead::Batch& batch, bulkhead::Context& ctx) override {
    transform("transform_test_batch", batch, ctx);
  }
  void transform_image(bulkhead::Image&, bulkhead::Context& ctx) override {
    see("transform_image", ctx, sample_of(ctx));
  }
  std::string transform_caption(std::string caption, bulkhead::Context& ctx) override {
    see("transform_caption", ctx, sample_of(ctx) + ", \"caption\": " + json(caption));
    for (const Act* act : acts("append", "transform_caption", ctx)) caption += act->value;
    return caption;
  }
  void transform_sample(bulkhead::Sample& sample, bulkhead::Context& ctx) override {
    see("transform_sample", ctx, sample_of(ctx) + ", \"caption\": " + json(sample.caption));
  }

  std::string state_dict() override {
    write_line(facts_, "state_dict", "");
    return R"({"a": 1, "b": 2.0, "c": "x"})";
  }
  void load_state_dict(std::string_view state) override {
    write_line(facts_, "load_state_dict", ", \"state\": " + std::string(state));
  }

 private:
  static std::string sample_of(const bulkhead::Context& ctx) {
    return ", \"sample\": " + json(*ctx.sample) + ", \"path\": " + json(ctx.path);
  }

  std::vector<const Act*> acts(std::string_view does, std::string_view hook, const bulkhead::Context& ctx) {
    std::vector<const Act*> found;
    for (const Act& act : script_) {
      if (act.does == does && act.is_at(hook, ctx)) found.push_back(&act);
    }
    return found;
  }

  void see(const char* hook, bulkhead::Context& ctx, const std::string& more = {}) {
    write_line(facts_, hook, fields_of(ctx) + more);
    for (const Act& act : script_) {
      if (act.is_at(hook, ctx)) perform(act, ctx);
    }
  }

  void perform(const Act& act, bulkhead::Context& ctx) {
    if (act.does == "stop") ctx.control.stop("the actor says so");
    if (act.does == "stop_epoch") ctx.control.stop_epoch();
    if (act.does == "save") ctx.control.save();
    if (act.does == "validate") ctx.control.validate();
    if (act.does == "log") ctx.control.log();
    if (act.does == "set") ctx.set(act.name(), act.number());
    if (act.does == "expected") throw Expected("as foreseen");
    if (act.does == "fail") throw std::out_of_range("nobody foresaw this");
    if (act.does == "sleep") std::this_thread::sleep_for(std::chrono::duration<double>(act.number()));
    if (act.does == "die") die_once();
  }

  void die_once() {
    const std::string name = facts_.plugin + "-" + std::to_string(facts_.rank) + ".died";
    const std::filesystem::path mark = std::filesystem::path(facts_.run_dir) / "witness" / name;
    if (std::filesystem::exists(mark)) return;
    std::ofstream(mark).flush();
    std::raise(SIGKILL);
  }

  void transform(const char* hook, bulkhead::Batch& batch, bulkhead::Context& ctx) {
    see(hook, ctx, ", \"rows\": " + json(batch.shape(batch.names().at(0)).at(0)));
    for (const Act* act : acts("scale", hook, ctx)) {
      const auto features = batch.mutable_view<float>("features");
      for (float& value : features.flat()) {
        value *= static_cast<float>(act->number());
      }
    }
    for (const Act* act : acts("take", hook, ctx)) take(batch, std::stoll(act->value));
  }

  static void take(bulkhead::Batch& batch, std::int64_t rows) {
    const auto features = batch.view<float>("features");
    const auto labels = batch.view<std::int64_t>("labels");
    const std::int64_t width = batch.shape("features")[1];
    const auto fewer = batch.add<float>("features", {rows, width});
    const auto fewer_labels = batch.add<std::int64_t>("labels", {rows});
    for (std::int64_t i = 0; i < rows; ++i) {
      fewer_labels(i) = labels(i);
      for (std::int64_t j = 0; j < width; ++j) fewer(i, j) = features(i, j);
    }
  }

  bulkhead::Facts facts_;
  std::vector<Act> script_;
};

}  // namespace tests

BULKHEAD_PLUGIN(tests::Actor)
