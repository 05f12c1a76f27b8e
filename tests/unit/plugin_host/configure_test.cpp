// The hook that comes before everything: what it reads and what it changes.
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "abi_arguments.h"
#include "bulkhead/config.h"
#include "protocol/codec.h"
#include "protocol/rng.h"
#include "support/loaded_plugin.h"

namespace bulkhead {
namespace {

Value run_config() {
  return {{"name", "ships"},
          {"optimizer", {{"lr", 0.25}, {"type", "adamw"}}},
          {"plugins", {{{"name", "first"}}}}};
}

TEST(Configure, ReadsTheRunAndGivesItsChanges) {
  LoadedPlugin plugin(load_of("configurer"));
  const Configured configured = plugin.runner().configure(run_config());
  ASSERT_FALSE(configured.failure) << configured.failure->message;
  EXPECT_EQ(configured.generation, LoadedPlugin::kOwn);
  const auto draw = Philox(call_key(42, "mine", 1, "configure", 0, 0)).next() % 1000;
  const Value expected{{"optimizer.lr", 0.5}, {"checkpoint.keep", 1}, {"draw", draw}, {"all", {"lr", "type"}},
                       {"on", true},          {"nothing", nullptr},   {"text", "x"}};
  EXPECT_EQ(configured.changes, expected);
  EXPECT_TRUE(decode(encode(configured)).ok());
  EXPECT_EQ(plugin.run("state_dict").state.text(), std::to_string(0.25));
}

TEST(Configure, GivesNoChangesWhereItThrows) {
  LoadedPlugin plugin(load_of("configurer"));
  Value run = run_config();
  run["plugins"].push_back({{"name", "second"}});
  const Configured thrown = plugin.runner().configure(run);
  EXPECT_EQ(thrown.failure->message, "I am second");
  EXPECT_TRUE(thrown.changes.empty());
  run["optimizer"]["lr"] = "fast";
  EXPECT_EQ(plugin.runner().configure(run).failure->message, "optimizer.lr must be a number, not \"fast\"");
  run["optimizer"].erase("lr");
  EXPECT_EQ(plugin.runner().configure(run).failure->message, "the run's configuration has no optimizer.lr");
}

TEST(Configure, ChangesNothingWhereItIsNotOverridden) {
  LoadedPlugin plugin(load_of("no_arguments"));
  const Configured configured = plugin.runner().configure(run_config());
  EXPECT_FALSE(configured.failure);
  EXPECT_EQ(configured.changes, Value::object());
}

TEST(Config, FollowsPathsThroughMapsAndLists) {
  const Value value = run_config();
  const AbiValue plain(value);
  const Config config(plain.root());
  EXPECT_EQ(config.require<std::string>("plugins.0.name"), "first");
  EXPECT_FALSE(config.has("plugins.1"));
  EXPECT_FALSE(config.has("plugins.x"));
  EXPECT_FALSE(config.has("optimizer.lr.deeper"));
  EXPECT_EQ(config.get("optimizer.momentum", 0.9), 0.9);
  EXPECT_EQ(config.keys(), (std::vector<std::string>{"name", "optimizer", "plugins"}));
  EXPECT_EQ(config.size("plugins"), 1u);
  EXPECT_EQ(config.size("name"), 0u);
}

// Lists in lists, `depth` of them.
abi::Value nested(std::vector<abi::Value>& storage, std::size_t depth) {
  storage.assign(depth, abi::Value{});
  for (std::size_t i = 0; i < depth; ++i) {
    storage[i].kind = abi::Value::Kind::kList;
    storage[i].count = i + 1 < depth ? 1 : 0;
    storage[i].items = i + 1 < depth ? &storage[i + 1] : nullptr;
  }
  return storage[0];
}

TEST(PlainValue, ComesBackWithinTheCodecsLimits) {
  for (const Value& value :
       {run_config(), Value(nullptr), Value(-3), Value(1e300), Value(""), Value::array()}) {
    EXPECT_EQ(*value_of(AbiValue(value).root()), value);
  }
  std::vector<abi::Value> storage;
  EXPECT_TRUE(value_of(nested(storage, 20)).ok());
  EXPECT_EQ(value_of(nested(storage, 100)).error().message, "lists and maps are nested too deeply");
  abi::Value text{};
  text.kind = abi::Value::Kind::kText;
  const std::string letters(kMaxTextBytes + 1, 'x');
  text.text = abi::text(letters);
  EXPECT_EQ(value_of(text).error().message, "a text is longer than 1 MiB");
  text.text = abi::text("\xff");
  EXPECT_EQ(*value_of(text), "\xef\xbf\xbd");
  abi::Value many{};
  many.kind = abi::Value::Kind::kList;
  many.count = kMaxItems + 1;
  EXPECT_EQ(value_of(many).error().message, "a list or map has more than 65,536 items");
}

}  // namespace
}  // namespace bulkhead
