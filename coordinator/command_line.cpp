#include "command_line.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include <CLI/CLI.hpp>

#include "hook_table.h"
#include "run_schema.h"
#include "run_value.h"
#include "suggestion.h"

namespace bulkhead {
namespace {

constexpr const char* kUsage = "bulkhead-run [flags] RUN.yaml [key=value …]";

struct Flag {
  const char* name;  // with dashes; the underscore spelling goes with it
  const char* fallback;
  const char* meaning;
};
constexpr Flag kFlags[] = {
    {"nproc-per-node", "1",
     "ranks: a number, gpu (one per GPU), cpu (one per core), or auto (gpu, else cpu)"},
    {"nnodes", "1", "machines; only 1 in this version"},
    {"node-rank", "0", "this machine's number"},
    {"master-addr", "127.0.0.1", "address at which ranks meet"},
    {"master-port", "0", "its port; 0 = any free one"},
    {"rdzv-endpoint", "", "HOST:PORT, the same two in one"},
    {"rdzv-backend", "", "c10d or static, which are the same on one machine"},
    {"rdzv-id", "", "name of the job; not needed on one machine"},
    {"max-restarts", "0", "times that ranks are restarted from the last checkpoint"},
    {"log-dir", "", "folder for the logs of processes (default: logs/ in the run directory)"},
    {"run-dir", "runs", "folder of run directories"},
    {"grace", "30s", "time that ranks have to stop in order when the run is interrupted"},
    {"resume", "none", "auto (the newest unfinished run of that name, else a new one), none, or a PATH"},
};

std::string in_quotes(const std::string& text) { return "\"" + text + "\""; }

Error refuse(const std::string& sentence) { return Error{ErrorCode::kMismatch, sentence}; }

std::string underscored(std::string text) {
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
}

// PET_NPROC_PER_NODE for nproc-per-node.
std::string variable_of(const std::string& name) {
  std::string variable = "PET_" + underscored(name);
  std::transform(variable.begin(), variable.end(), variable.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return variable;
}

// A flag's text, and what to call it in a sentence: --nnodes or PET_NNODES.
struct Given {
  std::string text;
  std::string source;
};

struct Parsed {
  std::map<std::string, Given> flags;
  bool standalone = false;
  std::vector<std::string> positionals;
  std::optional<std::string> help;
};

class FlagParser {
 public:
  FlagParser() {
    app_.name("bulkhead-run");
    app_.allow_extras();
    for (const Flag& flag : kFlags) {
      std::string spellings = std::string("--") + flag.name;
      if (underscored(flag.name) != flag.name) spellings += ",--" + underscored(flag.name);
      std::string meaning = flag.meaning;
      if (*flag.fallback != '\0') meaning += std::string(" [") + flag.fallback + "]";
      auto* option = app_.add_option(spellings, texts_[flag.name], meaning);
      options_[flag.name] = option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    }
    app_.add_flag("--standalone", standalone_, "one machine, any free port");
    app_.add_option("RUN.yaml", positionals_, "the run file, then key=value for any of its keys");
  }

  Result<Parsed> parse(std::vector<std::string> arguments, const LaunchFacts& facts) {
    join_negative_values(arguments);
    std::reverse(arguments.begin(), arguments.end());
    Parsed parsed;
    try {
      app_.parse(arguments);
    } catch (const CLI::CallForHelp&) {
      parsed.help = app_.help();
      return parsed;
    } catch (const CLI::ArgumentMismatch& error) {
      const std::string text = error.what();
      return refuse(text.substr(0, text.find(':')) + " needs a value");
    } catch (const CLI::ParseError& error) {
      return refuse(error.what());
    }
    for (const std::string& extra : app_.remaining()) {
      if (extra.starts_with('-')) return unknown(extra);
    }
    for (const Flag& flag : kFlags) parsed.flags[flag.name] = given(flag, facts);
    const char* standalone = facts.environment ? facts.environment("PET_STANDALONE") : nullptr;
    parsed.standalone = standalone_ || (standalone != nullptr && std::string(standalone) != "0");
    parsed.positionals = positionals_;
    return parsed;
  }

 private:
  // "--nnodes -1": CLI11 would take -1 for a flag.
  void join_negative_values(std::vector<std::string>& arguments) const {
    for (std::size_t i = 0; i + 1 < arguments.size(); ++i) {
      const std::string& value = arguments[i + 1];
      const bool negative =
          value.size() > 1 && value[0] == '-' && std::isdigit(static_cast<unsigned char>(value[1]));
      if (!negative || !arguments[i].starts_with("--")) continue;
      arguments[i] += "=" + value;
      arguments.erase(arguments.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    }
  }

  Error unknown(const std::string& extra) const {
    const std::string name = extra.substr(0, extra.find('='));
    std::vector<std::string> names = {"--standalone", "--help"};
    for (const Flag& flag : kFlags) names.push_back(std::string("--") + flag.name);
    std::string dashed = name;
    std::replace(dashed.begin(), dashed.end(), '_', '-');
    return refuse(name + " is not a flag of bulkhead-run" +
                  did_you_mean(dashed, names, "see --help; its flags are"));
  }

  Given given(const Flag& flag, const LaunchFacts& facts) const {
    const std::string variable = variable_of(flag.name);
    const char* value = facts.environment ? facts.environment(variable.c_str()) : nullptr;
    if (options_.at(flag.name)->count() > 0) return {texts_.at(flag.name), std::string("--") + flag.name};
    if (value != nullptr) return {value, variable};
    return {flag.fallback, std::string("--") + flag.name};
  }

  CLI::App app_{"Trains what RUN.yaml says, with its plugins in processes of their own."};
  std::map<std::string, std::string> texts_;
  std::map<std::string, CLI::Option*> options_;
  std::vector<std::string> positionals_;
  bool standalone_ = false;
};

Result<int> whole_number(const Given& given, int least, int most) {
  int number = 0;
  const std::string& text = given.text;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_number =
      end == text.data() + text.size() && !text.empty() && error != std::errc::invalid_argument;
  if (!is_number) return refuse(given.source + " must be an integer, not \"" + text + "\"");
  if (error != std::errc() || number < least || number > most) {
    return refuse(given.source + " must be from " + std::to_string(least) + " to " + std::to_string(most) +
                  ", not " + text);
  }
  return number;
}

Result<int> rank_count(const Given& given, const LaunchFacts& facts) {
  if (given.text == "cpu") return facts.cores;
  if (given.text == "auto") return facts.gpus > 0 ? facts.gpus : facts.cores;
  if (given.text == "gpu") {
    if (facts.gpus > 0) return facts.gpus;
    return refuse(given.source + " is gpu, but there is no GPU here");
  }
  const bool has_letter =
      std::any_of(given.text.begin(), given.text.end(), [](unsigned char c) { return std::isalpha(c); });
  if (given.text.empty() || has_letter) {
    return refuse(given.source + " must be a number of ranks, auto, gpu or cpu, not \"" + given.text + "\"");
  }
  return whole_number(given, 1, 1024);
}

// N or MIN:MAX, of which only one node can be had yet.
Status check_nodes(const Given& given) {
  const std::size_t colon = given.text.find(':');
  for (const std::string& part :
       {given.text.substr(0, colon), colon == std::string::npos ? "1" : given.text.substr(colon + 1)}) {
    const auto nodes = whole_number({part, given.source}, 1, 1'000'000);
    if (!nodes) return nodes.error();
    if (*nodes != 1) {
      return refuse(given.source + " is " + given.text +
                    ", but this version trains on one machine only; several come later");
    }
  }
  return ok_status();
}

Status set_address(Parsed& parsed, RunOptions& options) {
  const Given& backend = parsed.flags["rdzv-backend"];
  if (!backend.text.empty() && backend.text != "c10d" && backend.text != "static") {
    return refuse(backend.source + " must be c10d or static, not \"" + backend.text + "\"");
  }
  const Given& endpoint = parsed.flags["rdzv-endpoint"];
  Given host = parsed.flags["master-addr"];
  Given port = parsed.flags["master-port"];
  if (!endpoint.text.empty()) {
    const std::size_t colon = endpoint.text.rfind(':');
    host = {endpoint.text.substr(0, colon), endpoint.source};
    port = {colon == std::string::npos ? "0" : endpoint.text.substr(colon + 1), endpoint.source + "'s port"};
  }
  if (host.text.empty()) return refuse(host.source + " must name a host");
  const auto number = whole_number(port, 0, 65535);
  if (!number) return number.error();
  options.master_addr = host.text;
  options.master_port = parsed.standalone ? 0 : *number;
  return ok_status();
}

Status set_resume(const Given& given, RunOptions& options) {
  if (given.text == "none") return ok_status();
  options.resume = given.text == "auto" ? ResumeFrom::kNewestUnfinished : ResumeFrom::kPath;
  if (options.resume != ResumeFrom::kPath) return ok_status();
  options.resume_path = given.text;
  if (given.text.empty()) return refuse(given.source + " must be auto, none or a path");
  const std::filesystem::path path = std::filesystem::absolute(given.text).lexically_normal();
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return refuse(given.source + ": " + missing_path(path));
  return ok_status();
}

Status set_positionals(const std::vector<std::string>& positionals, RunOptions& options) {
  if (positionals.empty()) return refuse(std::string("no run file is given; usage: ") + kUsage);
  const std::string& file = positionals.front();
  std::error_code error;
  if (file.find('=') != std::string::npos && !std::filesystem::exists(file, error)) {
    return refuse("the run file must come before \"" + file + "\"; usage: " + kUsage);
  }
  options.run_file = file;
  options.overrides.assign(positionals.begin() + 1, positionals.end());
  for (const std::string& text : options.overrides) {
    if (text.find('=') == std::string::npos) {
      return refuse("after the run file come overrides key=value, which \"" + text + "\" is not");
    }
  }
  return ok_status();
}

Status set_options(Parsed& parsed, const LaunchFacts& facts, RunOptions& options) {
  auto& flags = parsed.flags;
  options.standalone = parsed.standalone;
  if (auto nodes = check_nodes(flags["nnodes"]); !nodes) return nodes;
  const auto ranks = rank_count(flags["nproc-per-node"], facts);
  if (!ranks) return ranks.error();
  const auto node_rank = whole_number(flags["node-rank"], 0, 1'000'000);
  if (!node_rank) return node_rank.error();
  if (*node_rank != 0)
    return refuse(flags["node-rank"].source + " must be 0 on one machine, not " + flags["node-rank"].text);
  const auto max_restarts = whole_number(flags["max-restarts"], 0, 1'000'000);
  if (!max_restarts) return max_restarts.error();
  options.ranks = *ranks;
  options.max_restarts = *max_restarts;
  if (!flags["log-dir"].text.empty()) options.log_dir = flags["log-dir"].text;
  if (flags["run-dir"].text.empty()) return refuse(flags["run-dir"].source + " must name a folder");
  options.run_dir = flags["run-dir"].text;
  const auto grace = parse_duration(flags["grace"].text);
  if (!grace || *grace < 0 || *grace > 86400) {
    return refuse(flags["grace"].source + " must be a duration up to 1d such as 30s, not \"" +
                  flags["grace"].text + "\"");
  }
  options.grace = std::chrono::milliseconds(std::llround(*grace * 1000));
  if (auto set = set_address(parsed, options); !set) return set;
  if (auto set = set_resume(flags["resume"], options); !set) return set;
  return set_positionals(parsed.positionals, options);
}

Result<CommandLine> parse_run(std::vector<std::string> arguments, const LaunchFacts& facts) {
  auto parsed = FlagParser().parse(std::move(arguments), facts);
  if (!parsed) return parsed.error();
  CommandLine line;
  if (parsed->help) {
    line.action = CommandLine::Action::kPrint;
    line.text = *parsed->help;
    return line;
  }
  if (auto set = set_options(*parsed, facts, line.run); !set) return set.error();
  return line;
}

using Arguments = std::vector<std::string>;

constexpr const char* kPluginUsage =
    "Usage: bulkhead plugin new NAME --lang py|cpp   writes a plugin that works, with a test\n"
    "       bulkhead plugin check FILE               starts it alone and calls every hook that it has\n"
    "       bulkhead plugin replay FILE              gives it a dead letter of a run again\n"
    "       bulkhead plugin list                     what ships\n";

bool asks_for_help(const std::string& argument) { return argument == "-h" || argument == "--help"; }

// Flags of new, check and replay are theirs.
Result<CommandLine> parse_plugin(const Arguments& arguments) {
  const Arguments tools = {"new", "check", "replay", "list"};
  if (arguments.empty()) return refuse("say what to do: bulkhead plugin new, check, replay or list");
  const std::string& tool = arguments.front();
  if (asks_for_help(tool)) return CommandLine{.action = CommandLine::Action::kPrint, .text = kPluginUsage};
  if (std::find(tools.begin(), tools.end(), tool) == tools.end()) {
    return refuse("bulkhead plugin has no " + in_quotes(tool) + did_you_mean(tool, tools, "it has"));
  }
  const Arguments rest(arguments.begin() + 1, arguments.end());
  if (tool != "list") {
    return CommandLine{.action = CommandLine::Action::kPluginTool, .tool = tool, .tool_arguments = rest};
  }
  if (!rest.empty()) return refuse("bulkhead plugin list takes no " + in_quotes(rest.front()));
  return CommandLine{.action = CommandLine::Action::kListPlugins};
}

Result<CommandLine> parse_hooks(const Arguments& arguments) {
  if (arguments.empty()) return CommandLine{.action = CommandLine::Action::kPrint, .text = hooks_text()};
  if (arguments.size() == 1 && arguments.front() == "--markdown") {
    return CommandLine{.action = CommandLine::Action::kPrint, .text = hooks_markdown()};
  }
  return refuse("bulkhead hooks takes --markdown or nothing, not " + in_quotes(arguments.back()));
}

}  // namespace

Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments, const LaunchFacts& facts) {
  const Arguments commands = {"run", "plugin", "hooks", "schema"};
  const Arguments later = {"status", "checkpoint", "host"};
  const std::string usage =
      std::string("Usage: ") + kUsage +
      "\n       bulkhead run [flags] RUN.yaml   the same\n"
      "       bulkhead plugin …               write one, try one, replay a batch, see what ships\n"
      "       bulkhead hooks [--markdown]     every hook, and when it is called\n"
      "       bulkhead schema                 every key of a run file\n";
  if (arguments.empty()) return refuse("say what to do: bulkhead " + one_of(commands));
  const std::string& command = arguments.front();
  const Arguments rest(arguments.begin() + 1, arguments.end());
  if (command == "run") return parse_run(rest, facts);
  if (command == "plugin") return parse_plugin(rest);
  if (command == "hooks") return parse_hooks(rest);
  if (command == "schema")
    return CommandLine{.action = CommandLine::Action::kPrint, .text = schema_markdown()};
  if (asks_for_help(command)) return CommandLine{.action = CommandLine::Action::kPrint, .text = usage};
  if (std::find(later.begin(), later.end(), command) != later.end()) {
    return refuse("bulkhead " + command + " is not in this version yet; there are " + join(commands));
  }
  return refuse(command + " is not a command of bulkhead" +
                did_you_mean(command, commands, "its commands are"));
}

}  // namespace bulkhead
