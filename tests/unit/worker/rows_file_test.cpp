// rows.safetensors: what is written comes back, damage is noticed, a checkpoint
// has it too.
#include "rows_file.h"

#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

RowsFile sample_file() {
  RowsFile file;
  file.rows.input_ids = {0, 1, 2, 0};
  file.rows.labels = {1, -100, 0, 2};
  file.rows.ends = {3, 4};
  file.rows.sizes = {1, 1, 0};
  file.rows.dropped = 5;
  file.rows.vocabulary = 3;
  file.rows.start_token = 2;
  file.rows.decoding = "char";
  file.rows.characters = "a\nü";
  file.data_key = "data";
  file.plugin_key = "plugins";
  file.states["stateless"].last_seq = Seq(7);
  file.states["with state"] = {Blob::of(std::string("\0state", 6)), Seq(9)};
  return file;
}

Blob encoded(const RowsFile& file) {
  Result<Blob> bytes = encode_rows(file);
  CHECK(bytes.ok(), bytes.error().message);
  return *bytes;
}

std::string complaint(const Blob& bytes) {
  const auto read = decode_rows(bytes, "rows");
  return read ? "it was taken" : read.error().message;
}

TEST(RowsFile, ComesBackAsItWas) {
  const RowsFile file = sample_file();
  const auto back = decode_rows(encoded(file), "rows");
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(back->rows.input_ids, file.rows.input_ids);
  EXPECT_EQ(back->rows.labels, file.rows.labels);
  EXPECT_EQ(back->rows.ends, file.rows.ends);
  EXPECT_EQ(back->rows.sizes.validation, 1);
  EXPECT_EQ(back->rows.dropped, 5);
  EXPECT_EQ(back->rows.vocabulary, 3);
  EXPECT_EQ(back->rows.start_token, 2);
  EXPECT_EQ(back->rows.decoding, "char");
  EXPECT_EQ(back->rows.characters, "a\nü");
  EXPECT_EQ(back->data_key, "data");
  EXPECT_EQ(back->plugin_key, "plugins");
  EXPECT_FALSE(back->states.at("stateless").state);
  EXPECT_EQ(back->states.at("stateless").last_seq, Seq(7));
  EXPECT_EQ(back->states.at("with state").state->text(), std::string_view("\0state", 6));
  EXPECT_EQ(encoded(*back).text(), encoded(file).text());
}

TEST(RowsFile, IsRefusedWhereItDoesNotFitTogether) {
  const auto with = [](auto change) {
    RowsFile file = sample_file();
    change(file.rows);
    return complaint(encoded(file));
  };
  const std::string misfit = "rows holds lists that do not fit together";
  EXPECT_EQ(with([](TokenRows& rows) { rows.labels.pop_back(); }), misfit);
  EXPECT_EQ(with([](TokenRows& rows) { rows.ends = {4, 3}; }), misfit);
  EXPECT_EQ(with([](TokenRows& rows) { rows.ends = {3, 5}; }), misfit);
  EXPECT_EQ(with([](TokenRows& rows) { rows.ends = {3}; }), misfit);
  EXPECT_EQ(with([](TokenRows& rows) { rows.sizes.train = 2; }), misfit);
  EXPECT_EQ(with([](TokenRows& rows) { rows.vocabulary = 2; }), misfit);
  EXPECT_EQ(with([](TokenRows& rows) { rows.input_ids[0] = -1; }), misfit);
  EXPECT_EQ(with([](TokenRows& rows) { rows.labels[0] = -99; }), misfit);
  EXPECT_EQ(with([](TokenRows& rows) { rows.start_token = 3; }), misfit);
}

TEST(RowsFile, IsRefusedWhereItWasAltered) {
  std::string bytes(encoded(sample_file()).text());
  EXPECT_TRUE(complaint(Blob::of(bytes.substr(0, bytes.size() - 1))).starts_with("rows"));
  EXPECT_NE(complaint(Blob::of(bytes.substr(0, bytes.size() - 1))), "it was taken");
  EXPECT_NE(complaint(Blob::of(std::string("not a file"))), "it was taken");
  // An id that is valid too.
  const std::string ids("\0\0\0\0\1\0\0\0\2\0\0\0\0\0\0\0", 16);
  const std::size_t at = bytes.find(ids);
  ASSERT_NE(at, std::string::npos);
  bytes[at] = '\1';
  EXPECT_EQ(complaint(Blob::of(bytes)), "rows was altered");
}

TEST(RowsFile, LiesWholeInTheRunsDirectoryAndInACheckpointOfIt) {
  const TemporaryDirectory directory;
  std::ofstream(directory.path() / "rows.safetensors.writing") << "of one that died";
  for (const std::int32_t id : {0, 1}) {
    RowsFile file = sample_file();
    file.rows.input_ids[0] = id;
    const Blob bytes = encoded(file);
    const auto written = write_rows_file(directory.path(), bytes);
    ASSERT_TRUE(written.ok()) << written.error().message;
    const auto there = read_checked(directory.path(), written->record);
    ASSERT_TRUE(there.ok()) << there.error().message;
    EXPECT_EQ(there->text(), bytes.text());
    EXPECT_FALSE(fs::exists(directory.path() / "rows.safetensors.writing"));

    auto writer = CheckpointWriter::open(directory.path() / "checkpoints", id, true);
    ASSERT_TRUE(writer.ok()) << writer.error().message;
    const auto linked = writer->link(*written);
    ASSERT_TRUE(linked.ok()) << linked.error().message;
    Manifest manifest;
    manifest.files = {*linked};
    const auto path = writer->commit(manifest, 0);
    ASSERT_TRUE(path.ok()) << path.error().message;
    EXPECT_EQ(fs::hard_link_count(*path / kRowsFile), 2U);
    EXPECT_TRUE(open_checkpoint(*path)->verify().ok());
  }
  EXPECT_EQ(fs::hard_link_count(directory.path() / "checkpoints" / "step-00000000" / kRowsFile), 1U)
      << "the first one's file stays as it was";
}

TEST(RowsFile, IsCopiedWhereTheSourceIsGoneFromItsPlace) {
  const TemporaryDirectory directory;
  auto writer = CheckpointWriter::open(directory.path() / "checkpoints", 1, true);
  ASSERT_TRUE(writer.ok());
  LinkedFile absent{directory.path() / "absent" / kRowsFile, {kRowsFile, 3, "00"}};
  EXPECT_FALSE(writer->link(absent)) << "neither a link nor a copy";
  // Another file system has no hard links to this one.
  std::ofstream("/dev/shm/bulkhead-rows-test", std::ios::trunc) << "abc";
  const LinkedFile far{"/dev/shm/bulkhead-rows-test", {kRowsFile, 3, to_hex(sha256("abc"))}};
  const auto copied = writer->link(far);
  fs::remove("/dev/shm/bulkhead-rows-test");
  ASSERT_TRUE(copied.ok()) << copied.error().message;
  EXPECT_EQ(copied->size, 3U);
}

PluginRoute route_of(const std::string& name, std::vector<std::string> hooks) {
  PluginRoute route;
  route.config.name = name;
  route.traits.hooks = std::move(hooks);
  return route;
}

TEST(RowsFile, IsKeyedByWhatItWasMadeOf) {
  RunConfig config;
  const std::string data = data_key_of(config);
  config.data.batch_size = 99;
  config.optimizer.lr = 1;
  EXPECT_EQ(data_key_of(config), data);
  config.model.context = 7;
  EXPECT_NE(data_key_of(config), data);

  const std::vector<PluginRoute> routes{route_of("a", {"preprocess"}), route_of("b", {"on_step_end"})};
  const std::string plugins = plugin_key_of(config, routes);
  EXPECT_EQ(plugin_key_of(config, {routes[0]}), plugins) << "b has no part in it";
  EXPECT_NE(plugin_key_of(config, {route_of("c", {"preprocess"})}), plugins);
  EXPECT_NE(plugin_key_of(config, {route_of("a", {"keep"})}), plugins);
  config.train.seed = 2;
  EXPECT_NE(plugin_key_of(config, routes), plugins);
}

}  // namespace
}  // namespace bulkhead
