// What plugins' configure() returned, laid over the run file: checked like it,
// listed in run.yaml.
#include "run_changes.h"
#include "run_file_fixture.h"

namespace bulkhead {
namespace {

class ConfiguredRun : public RunFileFolder {
 protected:
  static std::string text(const std::string& more = "") {
    return right(more + "plugins:\n  - {use: early_stop, name: early}\n  - {use: token_noise}\n");
  }
  Result<RunFile> configure(const std::string& file, const Value& changes, std::size_t plugin = 0) {
    auto run = read(file);
    EXPECT_TRUE(run.ok()) << (run ? "" : run.error().message);
    return configure_run_file(*run, plugin, changes, context_);
  }
  std::string refusal_of(const Value& changes) {
    const auto run = configure(text(), changes);
    return run ? "" : without_folder(run.error().message);
  }
};

TEST_F(ConfiguredRun, TakesDottedKeysAndNestedMappings) {
  const auto run =
      configure(text("optimizer: {lr: 0.5, weight_decay: 0.25}\n"),
                {{"optimizer", {{"lr", 0.125}}}, {"train.max_steps", 9}, {"schedule.type", "cosine"}});
  ASSERT_TRUE(run.ok()) << run.error().message;
  EXPECT_EQ(run->config.optimizer.lr, 0.125);
  EXPECT_EQ(run->config.optimizer.weight_decay, 0.25) << "a nested mapping changes what it names only";
  EXPECT_EQ(run->config.train.max_steps, 9);
  EXPECT_EQ(run->config.schedule.type, "cosine");
  EXPECT_EQ(run->config.plugins.size(), 2U);
}

TEST_F(ConfiguredRun, ListsTheChangesInRunYamlWhichCanBeReadAgain) {
  const auto first = configure(text(), {{"optimizer.lr", 0.125}});
  ASSERT_TRUE(first.ok());
  const auto second = configure_run_file(*first, 1, {{"train", {{"seed", 7}}}}, context_);
  ASSERT_TRUE(second.ok());
  const std::string yaml = second->resolved_yaml;
  EXPECT_NE(yaml.find("lr: 0.125\n"), std::string::npos) << yaml;
  EXPECT_NE(yaml.find("configured:\n  - {key: optimizer.lr, plugin: early, value: 0.125}\n"
                      "  - {key: train.seed, plugin: token_noise, value: 7}\n"),
            std::string::npos)
      << yaml;
  const auto again = read(yaml);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->config.optimizer.lr, 0.125);
  EXPECT_EQ(again->config.train.seed, 7);
}

TEST_F(ConfiguredRun, ShowsALaterPluginWhatTheEarlierOnesChanged) {
  const auto run = configure(text(), {{"optimizer.lr", 0.125}});
  ASSERT_TRUE(run.ok());
  const Value map = run_map(*run);
  EXPECT_EQ(map["optimizer"]["lr"], 0.125);
  EXPECT_EQ(map["train"]["max_steps"], 5);
  EXPECT_EQ(map["plugins"][0]["name"], "early");
  EXPECT_EQ(map["configured"][0]["plugin"], "early");
}

TEST_F(ConfiguredRun, TakesDefaultsAnewWhereTheyDependOnAChange) {
  const auto run =
      configure("data: {type: mnist, path: data/mnist}\ntrain: {max_steps: 5}\nplugins: [early_stop]\n",
                {{"model.type", "mlp"}});
  ASSERT_TRUE(run.ok()) << run.error().message;
  EXPECT_EQ(run->config.model.width, 128);
}

TEST_F(ConfiguredRun, IsRefusedLikeTheSameMistakeInTheRunFile) {
  const std::string place = "run.yaml:4: plugin \"early\": configure: ";
  const std::vector<std::pair<Value, std::string>> cases = {
      {{{"optimizer.lrr", 1}}, "optimizer.lrr is not a key; did you mean \"lr\"?"},
      {{{"optimzer", {{"lr", 1}}}}, "optimzer is not a key; did you mean \"optimizer\"?"},
      {{{"train.max_steps", "many"}}, "train.max_steps must be an integer, not \"many\""},
      {{{"train.max_steps", 2.5}}, "train.max_steps must be an integer, not \"2.5\""},
      {{{"train.max_steps", nullptr}}, "train.max_steps must be an integer, not nothing"},
      {{{"train.max_steps", {1, 2}}}, "train.max_steps must be an integer, not a list"},
      {{{"optimizer.lr", -1}}, "optimizer.lr must be greater than 0, not \"-1\""},
      {{{"schedule.type", "cosin"}}, "schedule.type must be constant, linear or cosine, not \"cosin\""},
      {{{"optimizer.momentum", 0.5}}, "optimizer.momentum belongs to optimizer.type sgd, not to adamw"},
      {{{"model.heads", 7}}, "model.width 384 must be a multiple of model.heads 7"},
      {{{"data.path", "gone.txt"}},
       "data.path: gone.txt does not exist; that folder holds: built, data, "
       "my_plugins.py, python, run.yaml, shipped"},
      {{{"name", "other"}}, "a plugin cannot change \"name\": the run directory has been named"},
      {{{"plugins", Value::array()}}, "a plugin cannot change \"plugins\": the plugins have been started"},
      {{{"plugins", {{"early", {{"deadline", "1s"}}}}}},
       "a plugin cannot change \"plugins.early.deadline\": the plugins have been started"},
      {{{"train.device", "cuda"}}, "a plugin cannot change \"train.device\": the plugins have been told it"},
      {Value::array({1}), "it must return a mapping of keys to values, not array"},
      {{{"", 1}}, "the key has an empty part"},
  };
  for (const auto& [changes, sentence] : cases) EXPECT_EQ(refusal_of(changes), place + sentence) << changes;
}

TEST_F(ConfiguredRun, IsRefusedInThePluginsNameAlsoWhereAnotherKeyBreaksTheRule) {
  const auto run = configure(text("schedule: {type: linear, min_lr: 1.0e-4}\n"), {{"optimizer.lr", 1.0e-5}});
  ASSERT_FALSE(run.ok());
  EXPECT_EQ(
      without_folder(run.error().message),
      "run.yaml:5: plugin \"early\": configure: with its changes, run.yaml:3: schedule.min_lr must be at "
      "most optimizer.lr");
}

}  // namespace
}  // namespace bulkhead
