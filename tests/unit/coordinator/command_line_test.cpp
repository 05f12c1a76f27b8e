// bulkhead-run's flags: torchrun's spellings, variables and meanings, and a
// sentence for what is none of them.
#include "command_line.h"

#include <map>

#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

class BulkheadRun : public ::testing::Test {
 protected:
  Result<CommandLine> parse(std::vector<std::string> arguments) const {
    LaunchFacts facts{gpus_, 8, [this](const char* name) {
                        const auto found = variables_.find(name);
                        return found == variables_.end() ? nullptr : found->second.c_str();
                      }};
    arguments.insert(arguments.begin(), "run");
    return parse_command_line(arguments, facts);
  }
  RunOptions options(const std::vector<std::string>& arguments) const {
    const auto line = parse(arguments);
    EXPECT_TRUE(line.ok()) << (line ? "" : line.error().message);
    return line ? line->run : RunOptions();
  }
  std::string refusal(const std::vector<std::string>& arguments) const {
    const auto line = parse(arguments);
    return line ? "" : line.error().message;
  }

  int gpus_ = 0;
  std::map<std::string, std::string> variables_;
};

TEST_F(BulkheadRun, NeedsNothingButARunFile) {
  const RunOptions run = options({"a.yaml"});
  EXPECT_EQ(run.run_file, "a.yaml");
  EXPECT_EQ(run.ranks, 1);
  EXPECT_EQ(run.max_restarts, 0);
  EXPECT_EQ(run.master_port, 0);
  EXPECT_EQ(run.run_dir, "runs");
  EXPECT_EQ(run.grace, std::chrono::seconds(30));
  EXPECT_EQ(run.resume, ResumeFrom::kNothing);
  EXPECT_FALSE(run.log_dir.has_value());
  EXPECT_TRUE(run.overrides.empty());
}

TEST_F(BulkheadRun, TakesTorchrunsFlagsInBothSpellings) {
  const RunOptions dashed = options({"--nproc-per-node",
                                     "4",
                                     "--nnodes=1:1",
                                     "--node-rank",
                                     "0",
                                     "--master-addr",
                                     "host",
                                     "--master-port",
                                     "29500",
                                     "--max-restarts",
                                     "3",
                                     "--log-dir",
                                     "/l",
                                     "--run-dir",
                                     "r",
                                     "--grace",
                                     "500ms",
                                     "a.yaml",
                                     "train.max_steps=5",
                                     "optimizer.lr=-1"});
  const RunOptions underscored =
      options({"--nproc_per_node=4", "--nnodes", "1", "--node_rank=0", "--master_addr=host",
               "--master_port=29500", "--max_restarts=3", "--log_dir=/l", "--run_dir=r", "--grace=500ms",
               "a.yaml", "train.max_steps=5", "optimizer.lr=-1"});
  for (const RunOptions& run : {dashed, underscored}) {
    EXPECT_EQ(run.ranks, 4);
    EXPECT_EQ(run.master_addr, "host");
    EXPECT_EQ(run.master_port, 29500);
    EXPECT_EQ(run.max_restarts, 3);
    EXPECT_EQ(run.log_dir, "/l");
    EXPECT_EQ(run.run_dir, "r");
    EXPECT_EQ(run.grace, std::chrono::milliseconds(500));
    EXPECT_EQ(run.overrides, (std::vector<std::string>{"train.max_steps=5", "optimizer.lr=-1"}));
  }
}

TEST_F(BulkheadRun, TakesTheLastOfAFlagGivenTwiceAndFlagsAfterTheRunFile) {
  const RunOptions run = options({"--nproc-per-node", "4", "a.yaml", "x=1", "--nproc-per-node", "2", "y=2"});
  EXPECT_EQ(run.ranks, 2);
  EXPECT_EQ(run.overrides, (std::vector<std::string>{"x=1", "y=2"}));
}

TEST_F(BulkheadRun, CountsRanksByGpusOrCores) {
  EXPECT_EQ(options({"--nproc-per-node", "auto", "a"}).ranks, 8);
  EXPECT_EQ(options({"--nproc-per-node", "cpu", "a"}).ranks, 8);
  EXPECT_EQ(refusal({"--nproc-per-node", "gpu", "a"}), "--nproc-per-node is gpu, but there is no GPU here");
  gpus_ = 3;
  EXPECT_EQ(options({"--nproc-per-node", "auto", "a"}).ranks, 3);
  EXPECT_EQ(options({"--nproc-per-node", "gpu", "a"}).ranks, 3);
  EXPECT_EQ(options({"--nproc-per-node", "cpu", "a"}).ranks, 8);
}

TEST_F(BulkheadRun, ReadsTorchrunsVariablesBelowItsFlags) {
  variables_ = {{"PET_NPROC_PER_NODE", "2"}, {"PET_MAX_RESTARTS", "5"}, {"PET_MASTER_PORT", "1234"}};
  EXPECT_EQ(options({"a"}).ranks, 2);
  EXPECT_EQ(options({"a"}).max_restarts, 5);
  EXPECT_EQ(options({"a"}).master_port, 1234);
  EXPECT_EQ(options({"--nproc-per-node", "3", "a"}).ranks, 3);
  variables_ = {{"PET_NPROC_PER_NODE", "0"}};
  EXPECT_EQ(refusal({"a"}), "PET_NPROC_PER_NODE must be from 1 to 1024, not 0");
}

TEST_F(BulkheadRun, TakesARendezvousEndpointForAddressAndPort) {
  const RunOptions run = options({"--rdzv-backend=c10d", "--rdzv-id=7", "--rdzv-endpoint=host:29400", "a"});
  EXPECT_EQ(run.master_addr, "host");
  EXPECT_EQ(run.master_port, 29400);
  EXPECT_EQ(options({"--standalone", "--rdzv-endpoint=localhost:29400", "a"}).master_port, 0);
  EXPECT_EQ(refusal({"--rdzv-backend=etcd", "a"}), "--rdzv-backend must be c10d or static, not \"etcd\"");
  EXPECT_EQ(refusal({"--rdzv-endpoint=host:x", "a"}), "--rdzv-endpoint's port must be an integer, not \"x\"");
}

TEST_F(BulkheadRun, ResumesFromNothingTheNewestOrAPath) {
  TemporaryDirectory directory;
  EXPECT_EQ(options({"--resume", "none", "a"}).resume, ResumeFrom::kNothing);
  EXPECT_EQ(options({"--resume", "auto", "a"}).resume, ResumeFrom::kNewestUnfinished);
  const RunOptions run = options({"--resume", directory.path().string(), "a"});
  EXPECT_EQ(run.resume, ResumeFrom::kPath);
  EXPECT_EQ(run.resume_path, directory.path());
  const std::string missing = (directory.path() / "x").string();
  EXPECT_EQ(refusal({"--resume", missing, "a"}), "--resume: " + missing + " does not exist");
}

TEST_F(BulkheadRun, RefusesWithOneSentence) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{}, "no run file is given; usage: bulkhead-run [flags] RUN.yaml [key=value …]"},
      {{"train.seed=1"},
       "the run file must come before \"train.seed=1\"; usage: bulkhead-run [flags] RUN.yaml [key=value …]"},
      {{"a.yaml", "b.yaml"}, "after the run file come overrides key=value, which \"b.yaml\" is not"},
      {{"--nproc-per-node", "0", "a"}, "--nproc-per-node must be from 1 to 1024, not 0"},
      {{"--nproc-per-node", "-1", "a"}, "--nproc-per-node must be from 1 to 1024, not -1"},
      {{"--nproc-per-node", "99999999999", "a"}, "--nproc-per-node must be from 1 to 1024, not 99999999999"},
      {{"--nproc-per-node", "two", "a"},
       "--nproc-per-node must be a number of ranks, auto, gpu or cpu, not \"two\""},
      {{"--nproc_per_nod", "2", "a"},
       "--nproc_per_nod is not a flag of bulkhead-run; did you mean \"--nproc-per-node\"?"},
      {{"--nproc-per-nodes=2", "a"},
       "--nproc-per-nodes is not a flag of bulkhead-run; did you mean \"--nproc-per-node\"?"},
      {{"--nnodes", "2", "a"},
       "--nnodes is 2, but this version trains on one machine only; several come later"},
      {{"--nnodes", "1:4", "a"},
       "--nnodes is 1:4, but this version trains on one machine only; several come later"},
      {{"--nnodes", "few", "a"}, "--nnodes must be an integer, not \"few\""},
      {{"--node-rank", "1", "a"}, "--node-rank must be 0 on one machine, not 1"},
      {{"--master-port", "70000", "a"}, "--master-port must be from 0 to 65535, not 70000"},
      {{"--max-restarts", "often", "a"}, "--max-restarts must be an integer, not \"often\""},
      {{"--grace", "30", "a"}, "--grace must be a duration up to 1d such as 30s, not \"30\""},
      {{"a", "--max-restarts"}, "--max-restarts needs a value"},
  };
  for (const auto& [arguments, sentence] : cases) EXPECT_EQ(refusal(arguments), sentence);
}

TEST_F(BulkheadRun, ExplainsItself) {
  const auto line = parse({"--help"});
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line->action, CommandLine::Action::kPrint);
  for (const char* flag : {"--nproc-per-node", "--nproc_per_node", "--resume", "--standalone", "RUN.yaml"}) {
    EXPECT_NE(line->text.find(flag), std::string::npos) << flag;
  }
}

TEST(Bulkhead, SaysWhatItCannotDoYet) {
  const auto refusal = [](const std::vector<std::string>& arguments) {
    const auto line = parse_command_line(arguments, {});
    return line ? "" : line.error().message;
  };
  EXPECT_EQ(refusal({}), "say what to do: bulkhead run, plugin, hooks or schema");
  EXPECT_EQ(refusal({"status", "x"}),
            "bulkhead status is not in this version yet; there are run, plugin, hooks, schema");
  EXPECT_EQ(refusal({"plugin"}), "say what to do: bulkhead plugin new, check, replay or list");
  EXPECT_EQ(refusal({"plugin", "chek"}), "bulkhead plugin has no \"chek\"; did you mean \"check\"?");
  EXPECT_EQ(refusal({"plugin", "list", "all"}), "bulkhead plugin list takes no \"all\"");
  EXPECT_EQ(refusal({"hooks", "--html"}), "bulkhead hooks takes --markdown or nothing, not \"--html\"");
  EXPECT_EQ(refusal({"rnu"}), "rnu is not a command of bulkhead; did you mean \"run\"?");
}

TEST(Bulkhead, HandsThePluginToolsTheirArgumentsAsTheyAre) {
  const auto line = parse_command_line({"plugin", "new", "--lang", "py", "--help"}, {});
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line->action, CommandLine::Action::kPluginTool);
  EXPECT_EQ(line->tool, "new");
  EXPECT_EQ(line->tool_arguments, (std::vector<std::string>{"--lang", "py", "--help"}));
  EXPECT_EQ(parse_command_line({"plugin", "list"}, {})->action, CommandLine::Action::kListPlugins);
}

TEST(Bulkhead, PrintsTheKeysOfARunFile) {
  const auto line = parse_command_line({"schema"}, {});
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line->action, CommandLine::Action::kPrint);
  EXPECT_NE(line->text.find("`train.max_steps`"), std::string::npos);
}

}  // namespace
}  // namespace bulkhead
