// The data set stage and collate in the native host: rows as columns, one at a
// time, as tokens; what may come back; seeds.
#include "row_batch.h"

#include <gtest/gtest.h>

#include "protocol/rng.h"
#include "protocol/texts.h"
#include "support/loaded_plugin.h"

namespace bulkhead {
namespace {

using Texts = std::vector<std::string>;
using Numbers = std::vector<std::int64_t>;

Call call_of(const std::string& hook, const Texts& rows, const Numbers& numbers, std::int64_t chunk = 0) {
  Call call;
  call.hook = hook;
  call.seq = Seq{5};
  call.context.micro_batch = chunk;
  call.batch = pack_texts("rows", rows);
  call.batch.push_back(pack_numbers("sample", numbers));
  return call;
}

std::uint64_t draw(const std::string& hook, std::int64_t number) {
  return Philox(sample_key(42, "mine", hook, 0, number)).below(1000);
}

Numbers list_of(const Batch& batch, const std::string& name, std::size_t i) {
  const auto lists = NumberLists::unpack(batch, name);
  CHECK(lists.ok(), lists.error().message);
  return {(*lists)[i].begin(), (*lists)[i].end()};
}

std::string complaint(const Reply& reply) { return reply.failure ? reply.failure->message : "it was taken"; }

TEST(RowHooks, SeeAChunkAsColumnsSeededByItsNumber) {
  LoadedPlugin plugin(load_of("rows"));
  const Reply reply = plugin.run(
      call_of("preprocess", {R"({"text": "a", "deep": [{"x": 1.5}]})", R"({"deep": true})"}, {7, 8}, 3));
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  EXPECT_EQ(reply.seq, Seq{5});
  EXPECT_EQ(plugin.logged(), "chunk 3: 2\n");
  EXPECT_TRUE(reply.kept.empty());
  const std::string drawn = std::to_string(Philox(sample_key(42, "mine", "preprocess", 0, 3)).below(1000));
  EXPECT_EQ(*unpack_texts(reply.batch, "rows"),
            (Texts{R"({"from":0,"text":"a"})", R"({"from":1,"text":"a)" + drawn + "\"}",
                   R"({"from":2,"text":null})", R"({"from":3,"text":null})"}));
}

TEST(RowHooks, JudgeEachRowSeededByItsNumberWhateverTheChunk) {
  LoadedPlugin plugin(load_of("rows"));
  const Texts rows{R"({"text": "a"})", R"({"text": "b"})"};
  const Reply reply = plugin.run(call_of("keep", rows, {1002, 1003}, 1));
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  EXPECT_EQ(describe(reply.batch), "keep bool[2]");
  EXPECT_EQ(reply.batch[0].bytes.text(), std::string("\1\1", 2)) << "numbers, not places, count";
  EXPECT_EQ(plugin.logged(), "1002 a " + std::to_string(draw("keep", 1002)) + "\n1003 b " +
                                 std::to_string(draw("keep", 1003)) + "\n");
  EXPECT_EQ(plugin.run(call_of("keep", {rows[0]}, {2})).batch[0].bytes.text(), std::string("\0", 1));
}

TEST(RowHooks, EncodeEachRow) {
  LoadedPlugin plugin(load_of("rows"));
  const Reply reply = plugin.run(call_of("encode", {R"({"text": "aZb"})", R"({"text": ""})"}, {0, 1}));
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  EXPECT_EQ(describe(reply.batch),
            "input_ids int64[3], input_ids.ends int64[2], labels int64[3], labels.ends int64[2]");
  EXPECT_EQ(list_of(reply.batch, "input_ids", 0), (Numbers{'a', 'Z', 'b'}));
  EXPECT_EQ(list_of(reply.batch, "labels", 0), (Numbers{'a', -100, 'b'}));
  EXPECT_EQ(list_of(reply.batch, "labels", 1), Numbers{});
}

TEST(RowHooks, RefuseTokensThatAreNone) {
  LoadedPlugin plugin(load_of("rows"));
  EXPECT_EQ(complaint(plugin.run(call_of("encode", {R"({"text": "a!"})"}, {0}))),
            "encode gave 2 input_ids and 1 labels; there must be as many");
  EXPECT_EQ(complaint(plugin.run(call_of("encode", {R"({"text": "a", "labels": -5})"}, {0}))),
            "encode gave -5 among its labels; ids are 0 or more, -100 is not learned");
  EXPECT_EQ(complaint(plugin.run(call_of("encode", {R"({"text": "a", "labels": 3000000000})"}, {0}))),
            "encode gave 3000000000 among its labels; ids are 0 or more, -100 is not learned");
}

TEST(RowHooks, RefuseColumnsThatAreNone) {
  LoadedPlugin plugin(load_of("rows"));
  const auto spoilt = [&](const std::string& how) {
    const Reply reply = plugin.run(call_of("preprocess", {R"({"spoil": ")" + how + "\"}"}, {0}));
    EXPECT_EQ(reply.seq, Seq{5});
    EXPECT_TRUE(reply.batch.empty());
    return complaint(reply);
  };
  EXPECT_EQ(spoilt("text"), "preprocess gave no map of columns");
  EXPECT_EQ(spoilt("column"), "preprocess gave a column \"a\" that is no list");
  EXPECT_EQ(spoilt("lengths"), "preprocess gave columns of different lengths: a has 1, b has 2");
  EXPECT_EQ(spoilt("nan"), "the rows cannot be carried: JSON has no NaN and no infinity");
  EXPECT_EQ(spoilt("mistake"), "the value is a list, not a map");
}

Call samples_call(const std::vector<Numbers>& ids, const std::vector<Numbers>& labels) {
  Call call;
  call.hook = "collate";
  call.seq = Seq{6};
  call.seed_rank = 1;
  call.context.global_step = 9;
  for (const auto& [name, all] : {std::pair("input_ids", ids), std::pair("labels", labels)}) {
    NumberLists lists;
    for (const Numbers& list : all) lists.add(list);
    for (Tensor& tensor : lists.pack(name)) call.batch.push_back(std::move(tensor));
  }
  return call;
}

TEST(Collate, MakesABatchOfSamplesOfUnequalLengths) {
  LoadedPlugin plugin(load_of("rows"));
  const Reply reply = plugin.run(samples_call({{5}, {6, 7, 8}}, {{1}, {-100, 2, 3}}));
  ASSERT_FALSE(reply.failure) << reply.failure->message;
  ASSERT_EQ(describe(reply.batch), "input_ids int64[2,3], labels int64[2,3]");
  EXPECT_TRUE(reply.kept.empty());
  Tensor flat = reply.batch[0];
  flat.shape = {6};
  const auto drawn = static_cast<std::int64_t>(Philox(call_key(42, "mine", 1, "collate", 9, 0)).below(50));
  EXPECT_EQ(*unpack_numbers({flat}, "input_ids"), (Numbers{drawn, 0, 5, 8, 7, 6}));
  flat = reply.batch[1];
  flat.shape = {6};
  EXPECT_EQ(*unpack_numbers({flat}, "labels"), (Numbers{0, 0, 1, 3, 2, -100}));
}

TEST(RowBatch, NeedsWhatItsHookNeeds) {
  LoadedPlugin plugin(load_of("rows"));
  const std::string text = R"({"text": "a"})";
  EXPECT_EQ(complaint(plugin.run(call_of("keep", {text}, {1, 2}))),
            "the rank sent no batch for keep: \"rows\" and \"sample\" are of different lengths");
  EXPECT_EQ(complaint(plugin.run(call_of("keep", {"[1]"}, {1}))),
            "the rank sent no batch for keep: a row is no JSON object");
  Call lacking = call_of("preprocess", {text}, {1});
  lacking.batch.pop_back();
  EXPECT_EQ(complaint(plugin.run(lacking)),
            "the rank sent no batch for preprocess: \"sample\" is not in the batch");
  EXPECT_EQ(complaint(plugin.run(samples_call({{1, 2}}, {{1}}))),
            "the rank sent no batch for collate: \"input_ids\" and \"labels\" are of different lengths");
  EXPECT_EQ(plugin.run(call_of("preprocess", {}, {})).failure->message,
            "there is no \"text\"; there is nothing");
}

}  // namespace
}  // namespace bulkhead
