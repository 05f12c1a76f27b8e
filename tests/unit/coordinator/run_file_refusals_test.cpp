// Run files and overrides that are wrong: the exact sentence that each gets.
#include <vector>

#include "run_file_fixture.h"

namespace bulkhead {
namespace {

using BadRunFile = RunFileFolder;

struct Case {
  std::string text;
  std::string sentence;
};

TEST_F(BadRunFile, IsNamedByFileLineAndKey) {
  const std::vector<Case> cases = {
      {right("model:\n  widht: 4\n"), "run.yaml:4: model.widht is not a key; did you mean \"width\"?"},
      {right("trian: {}\n"), "run.yaml:3: trian is not a key; did you mean \"train\"?"},
      {right("lr: 3\n"), "run.yaml:3: lr is not a key; did you mean \"optimizer.lr\"?"},
      {right("checkpoint: {flux_capacitor: 3}\n"),
       "run.yaml:3: checkpoint.flux_capacitor is not a key; the keys here are: every, keep"},
      {right("model:\n  layers: six\n"), "run.yaml:4: model.layers must be an integer, not \"six\""},
      {right("model: {layers: 2.5}\n"), "run.yaml:3: model.layers must be an integer, not \"2.5\""},
      {right("model: {layers: }\n"), "run.yaml:3: model.layers must be an integer, not nothing"},
      {right("model: {layers: [1]}\n"), "run.yaml:3: model.layers must be an integer, not a list"},
      {right("model: {layers: 99999999999999999999}\n"),
       "run.yaml:3: model.layers must be an integer, not \"99999999999999999999\""},
      {right("model: gpt\n"),
       "run.yaml:3: model must be a mapping with the keys type, from, layers, heads, width, context, "
       "kv_heads, "
       "head_dim, mlp_width, rope_theta, rope_scaling, norm_eps, tied, qkv_bias, activation_checkpointing, "
       "not \"gpt\""},
      {right("model: {type: gtp}\n"),
       "run.yaml:3: model.type must be gpt, llama, mlp, cnn or clip, not \"gtp\""},
      {right("optimizer: {lr: fast}\n"), "run.yaml:3: optimizer.lr must be a number, not \"fast\""},
      {right("optimizer: {lr: .nan}\n"), "run.yaml:3: optimizer.lr must be a number, not \".nan\""},
      {right("optimizer: {lr: 0}\n"), "run.yaml:3: optimizer.lr must be greater than 0, not \"0\""},
      {right("optimizer: {beta2: 1}\n"),
       "run.yaml:3: optimizer.beta2 must be at least 0 and below 1, not \"1\""},
      {right("checkpoint: {every: -1}\n"), "run.yaml:3: checkpoint.every must be at least 0, not \"-1\""},
      {right("name: a/b\n"),
       "run.yaml:3: name must be letters, digits, _ and - (at most 64, a letter or _ first), not \"a/b\""},
      {right("model: {heads: 7}\n"), "run.yaml:3: model.width 384 must be a multiple of model.heads 7"},
      {right("optimizer: {type: adamw, momentum: 0.9}\n"),
       "run.yaml:3: optimizer.momentum belongs to optimizer.type sgd, not to adamw"},
      {right("schedule: {type: linear, min_lr: 1}\n"),
       "run.yaml:3: schedule.min_lr must be at most optimizer.lr"},
      {right("name: a\nname: b\n"), "run.yaml:4: the key name is given twice"},
      {right("name: [\n"), "run.yaml:4: not valid YAML: end of sequence flow not found"},
      {right("---\nname: b\n"), "run.yaml:4: there must be one YAML document only"},
      {right("name: !secret b\n"), "run.yaml:3: the tag !secret is not supported"},
      {"", "run.yaml: the run file is empty"},
      {"# nothing\n", "run.yaml: the run file is empty"},
      {"- a\n", "run.yaml:1: a run file is a mapping of keys, not a list"},
      {"just text\n", "run.yaml:1: a run file is a mapping of keys, not \"just text\""},
  };
  for (const Case& bad : cases) EXPECT_EQ(refusal(bad.text), bad.sentence) << bad.text;
}

TEST_F(BadRunFile, IsToldWhatIsMissingOrDoesNotFit) {
  const std::vector<Case> cases = {
      {"train: {max_steps: 5}\n",
       "run.yaml: data.type must be given (what the data set is: text for a language model, mnist for images "
       "in idx format, csv for a table, captions for images with a text each, rows for conversations and "
       "texts "
       "as JSON lines)"},
      {"data: {type: csv, path: data/table.csv}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.target must be given (name of the column that holds the label)"},
      {"data: {type: text, path: data/input.txt, batch_size: -4}\n",
       "run.yaml:1: data.batch_size must be from 1 to 1048576, not \"-4\""},
      {"data: {type: text, path: data/input.txt}\n",
       "run.yaml: train.max_steps or train.max_epochs must say when training ends"},
      {"data: {type: text, path: data/input.txt}\ntrain:\n  max_steps: 0\n",
       "run.yaml:2: train.max_steps or train.max_epochs must say when training ends"},
      {"data: {type: text, path: data/input.txt, target: y}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.target belongs to data.type csv, not to text"},
      {right("model: {type: cnn}\n"),
       "run.yaml:3: model.type cnn does not fit data.type text, which needs gpt or llama"},
      {"data: {type: mnist, path: data/mnist}\nmodel: {type: gpt}\ntrain: {max_steps: 5}\n",
       "run.yaml:2: model.type gpt does not fit data.type mnist, which needs cnn or mlp"},
      {right("model: {type: llama, kv_heads: 4}\n"),
       "run.yaml:3: model.heads 6 must be a multiple of model.kv_heads 4"},
      {right("model: {type: gpt, kv_heads: 3}\n"),
       "run.yaml:3: model.kv_heads belongs to model.type llama, not to gpt"},
      {right("model: {type: llama, from: data, width: 8}\n"),
       "run.yaml:3: model.width is what the config.json of model.from says; leave it out"},
      {right("model: {type: llama, from: data/bpe}\n"),
       "run.yaml:3: model.from: data/bpe/config.json does not exist; that folder holds: encoder.json, "
       "vocab.bpe"},
      {right("model: {type: llama, from: data/input.txt}\n"),
       "run.yaml:3: model.from: data/input.txt is not a folder"},
      {right("model: {type: mlp, heads: 2}\n"),
       "run.yaml:3: model.heads belongs to model.type gpt, llama or clip, not to mlp"},
      {"data: {type: text, path: data/input.txt}\ntrain: {max_steps: 5, device: cuda}\n",
       "run.yaml:2: train.device is cuda, but there is no GPU here or no CUDA in this build; use cpu"},
      {"data: {type: text, path: data/inptu.txt}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.path: data/inptu.txt does not exist; did you mean \"input.txt\"?"},
      {"data: {type: text, path: dta/input.txt}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.path: dta/input.txt does not exist (there is no dta); did you mean \"data\"?"},
      {"data: {type: text, path: data/mnist}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.path: data/mnist is a folder, not a file"},
      {"data: {type: mnist, path: data/input.txt}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.path: data/input.txt is not a folder"},
      {"data: {type: mnist, path: data/bpe}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.path: data/bpe/train-images-idx3-ubyte.gz does not exist; that folder holds: "
       "encoder.json, "
       "vocab.bpe"},
      {"data: {type: text, path: data/input.txt, tokenizer: gpt2}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.vocabulary must be given (folder of GPT-2's encoder.json and vocab.bpe)"},
  };
  for (const Case& bad : cases) EXPECT_EQ(refusal(bad.text), bad.sentence) << bad.text;
}

TEST_F(BadRunFile, IsToldWhatIsWrongWithAPlugin) {
  const auto plugin = [](const std::string& keys) { return right("plugins:\n  - {" + keys + "}\n"); };
  const std::vector<Case> cases = {
      {right("plugins: {use: x}\n"), "run.yaml:3: plugins must be a list, not a mapping"},
      {right("plugins: [[x]]\n"), "run.yaml:3: plugins.0 must be a mapping with the key use, not a list"},
      {plugin("name: x"),
       "run.yaml:4: plugins.0.use must be given (the plugin: file.py:Class, file.py, folder/:Class, "
       "pkg.mod:Class, pkg.mod.Class, lib.so, or NAME of a shipped one)"},
      {plugin("use: early_stop, wiht: {}"),
       "run.yaml:4: plugins.0.wiht is not a key; did you mean \"with\"?"},
      {plugin("use: early_stop, with: 3"),
       "run.yaml:4: plugins.0.with must be a mapping of names to values, not \"3\""},
      {plugin("use: early_stop, deadline: 30"),
       "run.yaml:4: plugins.0.deadline must be a duration such as 30s, 500ms, 10min or 1h, not \"30\""},
      {plugin("use: early_stop, deadline: -1s"),
       "run.yaml:4: plugins.0.deadline must be greater than 0, not \"-1s\""},
      {plugin("use: early_stop, limits: {memory: lots}"),
       "run.yaml:4: plugins.0.limits.memory must be a size such as 512MiB or 2GiB, not \"lots\""},
      {plugin("use: early_stop, scope: nod"),
       "run.yaml:4: plugins.0.scope must be rank, node or job, not \"nod\""},
      {plugin("use: early_stop, on_failure: {then: {fallback: mean}}"),
       "run.yaml:4: plugins.0.on_failure.then: fallback needs a plugin with a compute hook, which is not "
       "supported yet; "
       "use disable or abort"},
      {plugin("use: early_stop, device: cuda:0"),
       "run.yaml:4: plugins.0.device must be cpu or cuda, not \"cuda:0\""},
      {plugin("use: early_stop, device: cuda"),
       "run.yaml:4: plugins.0.device is cuda, but train.device is cpu: there is no GPU of a rank to share; "
       "use cpu"},
      {right("plugins: [early_stop, cuda]\n"),
       "run.yaml:3: use: cuda moves batches to a GPU, but train.device is cpu; leave it out, or train on a "
       "GPU"},
      {plugin("use: early_stpo"),
       "run.yaml:4: plugins.0.use: no shipped plugin is called early_stpo; did you mean "
       "\"early_stop\"?"},
      {plugin("use: 'my_plugin.py:EarlyStop'"),
       "run.yaml:4: plugins.0.use: my_plugin.py does not exist; did you mean \"my_plugins.py\"?"},
      {plugin("use: early_stop, python: ./pyhton"),
       "run.yaml:4: plugins.0.python: pyhton does not exist; did you mean \"python\"?"},
      {plugin("use: token_noise, python: ./python"),
       "run.yaml:4: plugins.0.python does not belong to a native plugin"},
      {right("plugins:\n  - early_stop\n  - {use: early_stop}\n"),
       "run.yaml:5: plugins.1.use: without a name of its own it is called \"early_stop\", as is plugins.0 "
       "(early_stop); give one of them another name with the key name"},
      {right("plugins:\n  - a.mod:Log\n  - b.mod.Log\n"),
       "run.yaml:5: plugins.1.use: without a name of its own it is called \"Log\", as is plugins.0 "
       "(a.mod:Log); "
       "give one of them another name with the key name"},
      {right("plugins:\n  - {use: a.mod:Log, name: x}\n  - {use: b.mod.Log, name: x}\n"),
       "run.yaml:5: plugins.1.name \"x\" is the name of plugins.0 (a.mod:Log) too; give one of them "
       "another name"},
      {plugin("use: 'hf://user/repo'"),
       "run.yaml:4: plugins.0.use: hf://user/repo is code from outside and is not "
       "trusted; set BULKHEAD_TRUST_REMOTE_CODE=1 if you trust it"},
  };
  for (const Case& bad : cases) EXPECT_EQ(refusal(bad.text), bad.sentence) << bad.text;
}

TEST_F(BadRunFile, IsToldWhatDoesNotGoWithAPluginOnTheGpu) {
  context_.has_cuda = true;
  const auto plugin = [](const std::string& keys) {
    return right("plugins:\n  - {use: early_stop, " + keys + "}\n");
  };
  EXPECT_EQ(refusal(plugin("device: cuda")), "");
  EXPECT_EQ(refusal(plugin("device: cuda, scope: job")),
            "run.yaml:4: plugins.0.device is cuda, but the scope is job: each rank has a GPU of its own, so "
            "the scope "
            "must be rank");
  EXPECT_EQ(refusal(plugin("device: cuda, limits: {memory: 2GiB}")),
            "run.yaml:4: plugins.0.device is cuda, but limits.memory bounds the address space, of which CUDA "
            "takes far "
            "more than it uses; give no limits.memory");
}

TEST_F(BadRunFile, IsToldThatNoDataIsLeftForTrainingOrTheTest) {
  const std::vector<Case> cases = {
      {right("", ", validation_fraction: 0.5, test_fraction: 0.5"),
       "run.yaml:1: data.validation_fraction and data.test_fraction must be below 1 together, or nothing is "
       "left "
       "to train on"},
      {"data: {type: text, path: data/input.txt}\ntrain: {max_steps: 5, test: true}\n",
       "run.yaml:2: train.test needs test data; say how much with data.test_fraction"},
      {"data: {type: mnist, path: data/mnist, test_fraction: 0.1}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.test_fraction belongs to data.type text, csv, captions or rows, not to mnist"},
      {"data: {type: rows, path: data}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.path: data is a folder, not a file"},
      {"data: {type: rows, path: data/input.txt}\nmodel: {type: mlp}\ntrain: {max_steps: 5}\n",
       "run.yaml:2: model.type mlp does not fit data.type rows, which needs gpt or llama"},
      {"data: {type: captions, path: data/input.txt}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.path: data/input.txt is not a folder"},
      {"data: {type: captions, path: data}\nmodel: {type: mlp}\ntrain: {max_steps: 5}\n",
       "run.yaml:2: model.type mlp does not fit data.type captions, which needs clip"},
      {"data: {type: text, path: data/input.txt, image_size: 64}\ntrain: {max_steps: 5}\n",
       "run.yaml:1: data.image_size belongs to data.type captions, not to text"},
  };
  for (const Case& bad : cases) EXPECT_EQ(refusal(bad.text), bad.sentence) << bad.text;
}

TEST_F(BadRunFile, SaysThatNoPythonWasSetUp) {
  context_.python = folder() / "none";
  EXPECT_EQ(refusal(right("plugins: [early_stop]")),
            "run.yaml:3: the plugin needs a Python and none is none: run scripts/setup, or name one as "
            "plugins.0.python");
}

TEST_F(BadRunFile, NamesAnOverrideAsItWasTyped) {
  const std::string text = right("plugins: [{use: early_stop, name: early}]\n");
  const std::vector<Case> cases = {
      {"trian.max_steps=5", "trian is not a key; did you mean \"train\"?"},
      {"train.max_stesp=5", "train.max_stesp is not a key; did you mean \"max_steps\"?"},
      {"train.max_steps=many", "train.max_steps must be an integer, not \"many\""},
      {"train.max_steps=", "train.max_steps must be an integer, not nothing"},
      {"data.batch_size=-4", "data.batch_size must be from 1 to 1048576, not \"-4\""},
      {"data.path=nowhere.txt",
       "data.path: nowhere.txt does not exist; that folder holds: built, data, my_plugins.py, python, "
       "run.yaml, shipped"},
      {"data.type.deeper=5", "data.type holds no keys"},
      {"plugins.erly.deadline=5s", "no plugin is called erly; did you mean \"early\"?"},
      {"plugins.7.deadline=5s", "the run file has 1 plugins and none is number 7"},
      {"plugins.early.deadlin=5s", "plugins.0.deadlin is not a key; did you mean \"deadline\"?"},
      {"train..seed=5", "the key has an empty part"},
      {"=5", "an override is written key=value"},
      {"seed", "an override is written key=value"},
      {"model={", "not valid YAML: end of map flow not found"},
  };
  for (const Case& bad : cases) {
    EXPECT_EQ(refusal(text, {bad.text}), "command line: " + bad.text + ": " + bad.sentence) << bad.text;
  }
  EXPECT_EQ(refusal(right(), {"plugins.0.use=x"}),
            "command line: plugins.0.use=x: the run file has 0 plugins and none is number 0");
}

TEST_F(BadRunFile, ThatIsNotThereIsNamedWithWhatIs) {
  const auto missing = read_run_file(folder() / "shiped" / "run.yaml", {}, context_);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(without_folder(missing.error().message),
            "the run file shiped/run.yaml does not exist (there is no shiped); did you mean \"shipped\"?");
  const auto directory = read_run_file(folder() / "data", {}, context_);
  ASSERT_FALSE(directory.ok());
  EXPECT_EQ(without_folder(directory.error().message), "data is a folder, not a run file");
}

TEST_F(BadRunFile, CannotExhaustTheReader) {
  std::string bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c <= 'h'; ++c) {
    bomb += std::string(1, c) + ": &" + c + " [";
    for (int i = 0; i < 10; ++i) bomb += std::string(i == 0 ? "*" : ", *") + static_cast<char>(c - 1);
    bomb += "]\n";
  }
  EXPECT_NE(refusal(bomb).find("nested too deep or too large"), std::string::npos) << refusal(bomb);
  EXPECT_NE(refusal(std::string(5'000, '[')), "");
  EXPECT_NE(refusal("a: &a [*a]\n"), "");
  EXPECT_NE(refusal(std::string("\x00\xff\xfe{", 4)), "");
  EXPECT_EQ(refusal(std::string(std::size_t{5} << 20, ' ')),
            "run.yaml: too large for a run file (over 4 MiB)");
}

}  // namespace
}  // namespace bulkhead
