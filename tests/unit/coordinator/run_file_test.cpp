// Run files that are right: what they resolve to.
#include "run_file.h"

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "run_file_fixture.h"
#include "run_schema.h"

namespace bulkhead {
namespace {

class GoodRunFile : public RunFileFolder {
 protected:
  RunConfig config_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
    const auto run = read(text, overrides);
    EXPECT_TRUE(run.ok()) << (run ? "" : run.error().message);
    return run ? run->config : RunConfig();
  }
};

TEST_F(GoodRunFile, FillsEveryDefaultFromTheSchema) {
  const RunConfig config = config_of(right());
  EXPECT_EQ(config.name, "run");
  EXPECT_EQ(config.model.type, "gpt");
  EXPECT_EQ(config.model.layers, 6);
  EXPECT_EQ(config.model.width, 384);
  EXPECT_EQ(config.data.path, (folder() / "data/input.txt").string());
  EXPECT_EQ(config.data.batch_size, 16);
  EXPECT_DOUBLE_EQ(config.optimizer.lr, 3.0e-4);
  EXPECT_EQ(config.train.device, "cpu");
  EXPECT_EQ(config.train.precision, "fp32");
  EXPECT_TRUE(config.train.deterministic);
  EXPECT_EQ(config.checkpoint.keep, 3);
  EXPECT_TRUE(config.plugins.empty());
}

TEST_F(GoodRunFile, HasOtherDefaultsForOtherTypesAndDevices) {
  context_.has_cuda = true;
  const RunConfig mnist = config_of("data: {type: mnist, path: data/mnist}\ntrain: {max_epochs: 1}");
  EXPECT_EQ(mnist.model.type, "cnn");
  EXPECT_EQ(mnist.model.width, 32);
  EXPECT_EQ(mnist.data.batch_size, 64);
  EXPECT_EQ(mnist.train.device, "cuda");
  EXPECT_EQ(mnist.train.precision, "bf16");
  EXPECT_FALSE(mnist.train.deterministic);
  const RunConfig csv = config_of(
      "data: {type: csv, path: data/table.csv, target: y}\ntrain: {max_epochs: 1, device: cpu}\noptimizer: "
      "{type: sgd}");
  EXPECT_EQ(csv.model.type, "mlp");
  EXPECT_EQ(csv.train.precision, "fp32");
  EXPECT_DOUBLE_EQ(csv.optimizer.lr, 0.01);
  EXPECT_DOUBLE_EQ(csv.optimizer.weight_decay, 0);
}

TEST_F(GoodRunFile, TakesNumbersAsYaml11And12AndPeopleWriteThem) {
  for (const char* text : {"3e-4", "3.0e-4", "0.0003", "\"3e-4\"", "+3.0e-4", ".0003"}) {
    EXPECT_DOUBLE_EQ(config_of(right("optimizer: {lr: " + std::string(text) + "}")).optimizer.lr, 3.0e-4)
        << text;
  }
  for (const char* text : {"1000", "1_000", "1e3", "1000.0", "'1000'", "+1000"}) {
    EXPECT_EQ(config_of(right("checkpoint: {every: " + std::string(text) + "}")).checkpoint.every, 1000)
        << text;
  }
  EXPECT_FALSE(config_of("data: {type: text, path: data/input.txt}\ntrain: {max_steps: 1, deterministic: no}")
                   .train.deterministic);
}

TEST_F(GoodRunFile, IsAsWellWrittenAsJson) {
  const RunConfig config = config_of(R"({"name": "j", "data": {"type": "text", "path": "data/input.txt"},
    "train": {"max_steps": 5, "deterministic": false}, "plugins": ["pkg.mod.Class"]})");
  EXPECT_EQ(config.name, "j");
  ASSERT_EQ(config.plugins.size(), 1U);
  EXPECT_EQ(config.plugins[0].module, "pkg.mod");
  EXPECT_EQ(config.plugins[0].class_name, "Class");
  EXPECT_EQ(config.plugins[0].name, "Class");
}

TEST_F(GoodRunFile, ReadsEveryKeyOfAPlugin) {
  const RunConfig config = config_of(right(R"(plugins:
  - use: my_plugins.py:EarlyStop
    name: early
    with: {patience: 3, rate: 1e-3, text: "3", deep: {list: [1, null, true]}}
    scope: job
    prefetch: 4
    deadline: 10 min
    on_failure: {restarts: 5, within: 500ms, then: abort}
    on_poison: skip
    check: finite
    limits: {memory: 2GiB, cpu: 2, open_files: 256}
    transport: socket
    spin: 20
    device: cpu
    python: ./python
)"));
  ASSERT_EQ(config.plugins.size(), 1U);
  const PluginConfig& plugin = config.plugins[0];
  EXPECT_EQ(plugin.use, "my_plugins.py:EarlyStop");
  EXPECT_EQ(plugin.name, "early");
  EXPECT_EQ(
      plugin.with,
      Value::parse(R"({"patience": 3, "rate": 0.001, "text": "3", "deep": {"list": [1, null, true]}})"));
  EXPECT_EQ(plugin.scope, "job");
  EXPECT_EQ(plugin.prefetch, 4);
  EXPECT_DOUBLE_EQ(plugin.deadline_seconds, 600);
  EXPECT_TRUE(plugin.deadline_given);
  EXPECT_EQ(plugin.on_failure.restarts, 5);
  EXPECT_DOUBLE_EQ(plugin.on_failure.within_seconds, 0.5);
  EXPECT_EQ(plugin.on_failure.then, "abort");
  EXPECT_EQ(plugin.on_poison, "skip");
  EXPECT_TRUE(plugin.check_finite);
  EXPECT_EQ(plugin.limits.memory_bytes, std::int64_t{2} << 30);
  EXPECT_EQ(plugin.limits.cpu, 2);
  EXPECT_EQ(plugin.limits.open_files, 256);
  EXPECT_EQ(plugin.transport, "socket");
  EXPECT_EQ(plugin.spin_us, 20);
  EXPECT_EQ(plugin.device, "cpu");
  EXPECT_EQ(plugin.python, (folder() / "python").string());
}

TEST_F(GoodRunFile, NeedsNoPluginToMoveBatchesToTheGpu) {
  context_.has_cuda = true;
  const RunConfig config = config_of(right("plugins: [cuda, early_stop, {use: token_noise, device: cuda}]"));
  ASSERT_EQ(config.plugins.size(), 2U);
  EXPECT_EQ(config.plugins[0].name, "early_stop");
  EXPECT_EQ(config.plugins[0].device, "cpu");
  EXPECT_EQ(config.plugins[1].device, "cuda");
}

TEST_F(GoodRunFile, KeepsTheDefaultDeadlineApartFromAGivenOne) {
  const RunConfig config = config_of(right("plugins: [early_stop, token_noise]"));
  ASSERT_EQ(config.plugins.size(), 2U);
  EXPECT_DOUBLE_EQ(config.plugins[0].deadline_seconds, 30);
  EXPECT_FALSE(config.plugins[0].deadline_given);
  EXPECT_EQ(config.plugins[0].python, (folder() / "python").string());
  EXPECT_EQ(config.plugins[1].language, "cpp");
  EXPECT_EQ(config.plugins[1].python, "");
}

TEST_F(GoodRunFile, IsChangedByOverridesOfKeysSectionsAndPlugins) {
  const std::string text = right("plugins: [early_stop, {use: 'my_plugins.py:EarlyStop', name: mine}]");
  const RunConfig config = config_of(text, {"train.max_steps=7", "model={layers: 2, heads: 2, width: 8}",
                                            "plugins.early_stop.with.patience=5", "plugins.1.deadline=10s",
                                            "plugins.mine.on_failure.restarts=0", "train.seed=3"});
  EXPECT_EQ(config.train.max_steps, 7);
  EXPECT_EQ(config.train.seed, 3);
  EXPECT_EQ(config.model.width, 8);
  ASSERT_EQ(config.plugins.size(), 2U);
  EXPECT_EQ(config.plugins[0].with, Value::parse(R"({"patience": 5})"));
  EXPECT_DOUBLE_EQ(config.plugins[1].deadline_seconds, 10);
  EXPECT_EQ(config.plugins[1].on_failure.restarts, 0);
  EXPECT_TRUE(config_of(text, {"plugins=[]"}).plugins.empty());
  EXPECT_EQ(config_of(text, {"plugins=[token_noise]", "plugins.token_noise.name=n"}).plugins.at(0).name, "n");
}

TEST_F(GoodRunFile, TakesTypedPathsFromTheCurrentDirectory) {
  add("elsewhere/here.txt", "");
  context_.current_directory = folder() / "elsewhere";
  EXPECT_EQ(config_of(right(), {"data.path=here.txt"}).data.path, (folder() / "elsewhere/here.txt").string());
}

TEST_F(GoodRunFile, NamesTheRunAfterItsFileInLettersThatAFileNameMayHave) {
  const auto run = read_run_file(add("2 my.run.yaml", right()), {}, context_);
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(run->config.name, "_2-my-run");
}

TEST_F(GoodRunFile, RemembersWhereEachKeyWasGiven) {
  const auto run = read(right("plugins:\n  - use: early_stop\n    with: {patience: 3}\n"), {"train.seed=2"});
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(without_folder(run->place_of("data.path")), "run.yaml:1");
  EXPECT_EQ(without_folder(run->place_of("data.target")), "run.yaml:1");
  EXPECT_EQ(without_folder(run->place_of("plugins.0.with")), "run.yaml:5");
  EXPECT_EQ(without_folder(run->place_of("plugins.early_stop.with")), "run.yaml:5");
  EXPECT_EQ(without_folder(run->place_of("plugins.0.python")), "run.yaml:4");
  EXPECT_EQ(run->place_of("train.seed"), "command line: train.seed=2");
  EXPECT_EQ(without_folder(run->place_of("schedule.type")), "run.yaml");
}

Value as_value(const PluginConfig& plugin) {
  return {{"name", plugin.name},
          {"with", plugin.with},
          {"scope", plugin.scope},
          {"deadline", plugin.deadline_seconds},
          {"given", plugin.deadline_given},
          {"within", plugin.on_failure.within_seconds},
          {"check", plugin.check_finite},
          {"memory", plugin.limits.memory_bytes},
          {"python", plugin.python},
          {"file", plugin.file},
          {"module", plugin.module},
          {"class", plugin.class_name},
          {"language", plugin.language}};
}

TEST_F(GoodRunFile, ReadsItsResolvedFormBackToTheSameRun) {
  const auto first = read(right(R"(optimizer: {lr: 1e-8, beta2: 0.999}
schedule: {type: cosine, warmup_steps: 3}
name: again
plugins:
  - {use: early_stop, with: {a: 1.0e-8, b: "no", c: [.inf, {d: "x\ny"}]}, limits: {memory: 512MiB}}
  - {use: 'my_plugins.py:EarlyStop', deadline: 1500ms, check: finite}
  - {use: saboteur.so}
  - {use: 'pkg.mod:Class', scope: job}
)"));
  ASSERT_TRUE(first.ok()) << first.error().message;
  const auto again = read_run_file(add("runs/x/run.yaml", first->resolved_yaml), {}, context_);
  ASSERT_TRUE(again.ok()) << again.error().message << "\n" << first->resolved_yaml;
  EXPECT_EQ(again->resolved_yaml, first->resolved_yaml);
  EXPECT_EQ(again->config.name, "again");
  EXPECT_EQ(again->config.optimizer.lr, 1e-8);
  EXPECT_EQ(again->config.data.path, first->config.data.path);
  ASSERT_EQ(again->config.plugins.size(), first->config.plugins.size());
  for (std::size_t i = 0; i < first->config.plugins.size(); ++i) {
    EXPECT_EQ(as_value(again->config.plugins[i]), as_value(first->config.plugins[i]));
  }
}

TEST_F(GoodRunFile, OfCaptionsTrainsClip) {
  const auto run =
      read("data: {type: captions, path: data, test_fraction: 0.25}\ntrain: {max_epochs: 2, test: true}\n");
  ASSERT_TRUE(run.ok()) << run.error().message;
  EXPECT_EQ(run->config.model.type, "clip");
  EXPECT_EQ(run->config.model.context, 64);
  EXPECT_EQ(run->config.model.width % run->config.model.heads, 0);
  EXPECT_EQ(run->config.data.image_size, 64);
  EXPECT_EQ(run->config.data.tokenizer, "char");
  EXPECT_EQ(run->config.data.test_fraction, 0.25);
  EXPECT_TRUE(run->config.train.test);
}

TEST_F(GoodRunFile, OfRowsTrainsAGpt) {
  const auto run = read(
      "data: {type: rows, path: data/input.txt, test_fraction: 0.25}\ntrain: {max_epochs: 2, test: "
      "true}\n");
  ASSERT_TRUE(run.ok()) << run.error().message;
  EXPECT_EQ(run->config.model.type, "gpt");
  EXPECT_EQ(run->config.data.batch_size, 16);
  EXPECT_EQ(run->config.data.tokenizer, "char");
  EXPECT_EQ(run->config.data.test_fraction, 0.25);
}

TEST_F(GoodRunFile, OfMnistTellsAFractionThatIsGivenFromNone) {
  const std::string mnist = "data: {type: mnist, path: data/mnist}\ntrain: {max_steps: 5}\n";
  const auto without = read(mnist);
  ASSERT_TRUE(without.ok()) << without.error().message;
  EXPECT_LT(without->config.data.validation_fraction, 0);
  EXPECT_EQ(without->resolved_yaml.find("validation_fraction"), std::string::npos) << without->resolved_yaml;
  const auto with = read(mnist, {"data.validation_fraction=0.2"});
  ASSERT_TRUE(with.ok()) << with.error().message;
  EXPECT_EQ(with->config.data.validation_fraction, 0.2);
  const auto again = read(without->resolved_yaml);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_LT(again->config.data.validation_fraction, 0);
  EXPECT_EQ(read(right())->config.data.validation_fraction, 0.1);
}

TEST_F(GoodRunFile, TakesTwoPluginFilesOfOneNameInTwoFolders) {
  add("a/plugin.py", "class Early(Plugin):\n  pass\n");
  add("b/plugin.py", "class Late(Plugin):\n  pass\n");
  const auto run = read(right("plugins: ['a/plugin.py:Early', 'b/plugin.py']\n"));
  ASSERT_TRUE(run.ok()) << run.error().message;
  EXPECT_EQ(run->config.plugins[0].name, "Early");
  EXPECT_EQ(run->config.plugins[1].name, "Late");
  EXPECT_NE(run->config.plugins[0].file, run->config.plugins[1].file);
}

TEST_F(GoodRunFile, WritesNumbersThatAYaml11ParserTakesForNumbers) {
  const auto run = read(right("optimizer: {lr: 1e-8}"));
  ASSERT_TRUE(run.ok());
  EXPECT_NE(run->resolved_yaml.find("lr: 1.0e-08\n"), std::string::npos) << run->resolved_yaml;
}

TEST_F(GoodRunFile, OfAFolderOfWeightsHasNoSizesOfItsOwn) {
  std::ofstream(folder() / "data" / "config.json") << "{}";
  const auto run = read(right("model: {type: llama, from: data, context: 32}"));
  ASSERT_TRUE(run.ok()) << run.error().message;
  EXPECT_EQ(run->config.model.from, (folder() / "data").string());
  EXPECT_EQ(run->resolved_yaml.find("layers:"), std::string::npos) << run->resolved_yaml;
  const auto again = read(run->resolved_yaml);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->config.model.from, run->config.model.from);
  EXPECT_EQ(again->config.model.context, 32);
  const auto scaled = read(right("model: {type: llama, rope_scaling: {rope_type: linear, factor: 2}}"));
  ASSERT_TRUE(scaled.ok()) << scaled.error().message;
  EXPECT_EQ(scaled->config.model.rope_scaling, (Value{{"rope_type", "linear"}, {"factor", 2}}));
  const auto same = read(scaled->resolved_yaml);
  ASSERT_TRUE(same.ok()) << same.error().message;
  EXPECT_EQ(same->config.model.rope_scaling, scaled->config.model.rope_scaling);
}

TEST(RunFileReadme, HasTheKeyTableOfTheSchema) {
  std::ifstream in(BULKHEAD_SOURCE_DIR "/coordinator/README.md");
  const std::string page(std::istreambuf_iterator<char>(in), {});
  EXPECT_NE(page.find(schema_markdown()), std::string::npos) << "paste the output of `bulkhead schema` there";
}

TEST(ReadyRunFiles, AreAllRight) {
  RunFileContext context;
  context.plugins = {BULKHEAD_SOURCE_DIR "/plugins", "", ""};
  context.python = "/bin/sh";
  int read = 0;
  for (const char* name : {"shakespeare", "mnist", "csv", "schedules", "averages", "repeat", "gsm8k"}) {
    const auto run =
        read_run_file(BULKHEAD_SOURCE_DIR "/scripts/runs/" + std::string(name) + ".yaml", {}, context);
    ASSERT_TRUE(run.ok()) << run.error().message;
    EXPECT_EQ(run->config.name, name);
    ++read;
  }
  EXPECT_EQ(read, 7);
}

}  // namespace
}  // namespace bulkhead
