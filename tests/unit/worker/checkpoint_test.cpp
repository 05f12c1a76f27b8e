#include "checkpoint.h"

#include <fstream>
#include <iterator>
#include <signal.h>
#include <sys/resource.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "support/temporary_directory.h"

namespace bulkhead {
namespace {

namespace fs = std::filesystem;

std::vector<NamedTensor> model() { return {{"wte.weight", at::arange(12).to(at::kFloat).reshape({3, 4})}}; }

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void put(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

void append(std::vector<FileRecord>& records, const Result<FileRecord>& record) {
  ASSERT_TRUE(record.ok()) << record.error().message;
  records.push_back(*record);
}

// A checkpoint of two ranks and one plugin; its path, or the error.
Result<fs::path> save(const fs::path& directory, std::int64_t step, std::int64_t keep = 0) {
  auto main = CheckpointWriter::open(directory, step, true);
  if (!main) return main.error();
  auto other = CheckpointWriter::open(directory, step, false);
  if (!other) return other.error();
  Manifest manifest;
  manifest.epoch = 1;
  manifest.step_in_epoch = 7;
  manifest.world_size = 2;
  manifest.state = {{"lr", 0.5}, {"note", "Grüße"}};
  append(manifest.files, main->write_tensors(kModelFile, model(), {{"format", "pt"}}));
  append(manifest.files, main->write_tensors(kOptimizerFile, {{"step", at::scalar_tensor(step, at::kLong)}}));
  for (std::int64_t rank = 0; rank < 2; ++rank) {
    auto& writer = rank == 0 ? *main : *other;
    append(manifest.files, writer.write_tensors(rank_file(WorkerId(rank)), {{"rng", at::full({4}, rank)}}));
    append(manifest.files,
           writer.write_bytes(plugin_file("early", WorkerId(rank)), std::string("\0state", 6)));
  }
  return main->commit(manifest, keep);
}

std::string refusal(const fs::path& path) {
  const auto opened = open_checkpoint(path);
  return opened ? "opened" : opened.error().message;
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& found : fs::directory_iterator(directory))
    names.push_back(found.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class Checkpoint : public ::testing::Test {
 protected:
  fs::path saved(std::int64_t step, std::int64_t keep = 0) {
    const auto path = save(directory_, step, keep);
    EXPECT_TRUE(path.ok()) << path.error().message;
    return path ? *path : fs::path();
  }
  TemporaryDirectory temporary_;
  fs::path directory_ = temporary_.path() / "checkpoints";
};

TEST_F(Checkpoint, BringsBackWhatWasSaved) {
  const fs::path path = saved(100);
  EXPECT_EQ(path, directory_ / "step-00000100");
  EXPECT_EQ(names_in(directory_), std::vector<std::string>{"step-00000100"});
  const auto checkpoint = open_checkpoint(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  const Manifest& manifest = checkpoint->manifest();
  EXPECT_EQ(manifest.step, 100);
  EXPECT_EQ(manifest.epoch, 1);
  EXPECT_EQ(manifest.step_in_epoch, 7);
  EXPECT_EQ(manifest.world_size, 2);
  EXPECT_EQ(manifest.state["lr"], 0.5);
  EXPECT_EQ(manifest.state["note"], "Grüße");
  EXPECT_EQ(manifest.files.size(), 6u);
  EXPECT_TRUE(checkpoint->verify().ok());
  EXPECT_TRUE(at::equal(checkpoint->read_tensors(kModelFile)->tensors[0].value, model()[0].value));
  EXPECT_EQ(checkpoint->read_tensors("rank-1.safetensors")->tensors[0].value[0].item<int>(), 1);
  EXPECT_EQ(checkpoint->read_bytes("plugins/early/rank-1.bin")->text(), std::string_view("\0state", 6));
  EXPECT_TRUE(checkpoint->has("plugins/early/rank-0.bin"));
  EXPECT_FALSE(checkpoint->has("plugins/late/rank-0.bin"));
  EXPECT_EQ(checkpoint->read_bytes("plugins/late/rank-0.bin").error().code, ErrorCode::kUnavailable);
}

TEST_F(Checkpoint, DetectsAFlippedBitInEveryFile) {
  const fs::path path = saved(1);
  for (const auto& found : fs::recursive_directory_iterator(path)) {
    if (!found.is_regular_file()) continue;
    const std::string good = text_of(found.path());
    const std::size_t stride = found.path().filename() == kManifestName ? 11 : 61;
    for (std::size_t bit = 0; bit < good.size() * 8; bit += stride) {
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      put(found.path(), bad);
      const auto opened = open_checkpoint(path);
      EXPECT_FALSE(opened.ok() && opened->verify().ok()) << found.path() << " bit " << bit;
    }
    put(found.path(), good);
  }
  EXPECT_TRUE(open_checkpoint(path)->verify().ok());
}

TEST_F(Checkpoint, NamesTheFileThatIsCorruptOrCutShort) {
  const fs::path path = saved(1);
  const fs::path file = path / kModelFile;
  std::string text = text_of(file);
  text.back() = static_cast<char>(text.back() ^ 1);
  put(file, text);
  EXPECT_EQ(open_checkpoint(path)->read_tensors(kModelFile).error().message,
            file.string() + " is corrupt: its sha256 is not the manifest's");
  text.pop_back();
  put(file, text);
  EXPECT_EQ(refusal(path), file.string() + " has " + std::to_string(text.size()) +
                               " bytes, but its manifest says " + std::to_string(text.size() + 1));
  fs::remove(file);
  EXPECT_EQ(refusal(path), "cannot open " + file.string() + ": No such file or directory");
}

TEST_F(Checkpoint, RefusesForeignAndNewerOnes) {
  const fs::path path = saved(1);
  const fs::path manifest = path / kManifestName;
  std::string newer = text_of(manifest);
  newer.replace(newer.find("\"version\": 1"), 12, "\"version\": 2");
  put(manifest, newer);
  EXPECT_EQ(refusal(path),
            manifest.string() + " has checkpoint format version 2, but this bulkhead reads version 1");
  put(manifest, R"({"format": "other"})");
  EXPECT_EQ(refusal(path), manifest.string() + " is not the manifest of a bulkhead checkpoint");
  put(manifest, "not JSON");
  EXPECT_EQ(refusal(path), manifest.string() + " is not the manifest of a bulkhead checkpoint");
  EXPECT_EQ(open_checkpoint(temporary_.path() / "none").error().code, ErrorCode::kUnavailable);
}

TEST_F(Checkpoint, FollowsNoSymlink) {
  const fs::path path = saved(1);
  const fs::path outside = temporary_.path() / "outside";
  fs::rename(path / kModelFile, outside);
  fs::create_symlink(outside, path / kModelFile);
  EXPECT_EQ(refusal(path), "cannot open " + (path / kModelFile).string() + ": it is a symbolic link");
  fs::remove(path / kModelFile);
  fs::rename(outside, path / kModelFile);
  ASSERT_TRUE(open_checkpoint(path).ok());
  fs::rename(path / "plugins", outside);
  fs::create_directory_symlink(outside, path / "plugins");
  EXPECT_EQ(refusal(path),
            "cannot open " + (path / "plugins/early/rank-0.bin").string() + ": it is a symbolic link");
}

TEST_F(Checkpoint, RefusesNamesThatLeadOut) {
  auto writer = CheckpointWriter::open(directory_, 1, true);
  ASSERT_TRUE(writer.ok());
  for (const std::string name :
       {"../evil", "a/../../evil", "/etc/evil", "", "a//b", ".hidden", "a/.", "a\\b", "a\nb"}) {
    EXPECT_FALSE(writer->write_bytes(name, "x").ok()) << name;
    const FileRecord record{name, 1, std::string(64, 'a')};
    EXPECT_FALSE(encode_manifest(Manifest{.files = {record}}).ok()) << name;
    EXPECT_FALSE(decode_records(encode_records({record})).ok()) << name;
  }
  EXPECT_FALSE(writer->write_bytes(plugin_file("../x", WorkerId(0)), "x").ok());
  EXPECT_FALSE(fs::exists(temporary_.path() / "evil"));
}

TEST_F(Checkpoint, IgnoresHalfWrittenOnesAndTakesTheNewest) {
  EXPECT_FALSE(newest_complete(directory_));
  saved(9);
  saved(20);
  saved(100);
  fs::remove(directory_ / "step-00000100" / kManifestName);  // died before the manifest
  fs::create_directories(directory_ / ".step-00000200.writing");
  fs::create_directories(directory_ / "step-300");
  put(directory_ / "step-00000400", "a file");
  EXPECT_EQ(newest_complete(directory_), directory_ / "step-00000020");
}

TEST_F(Checkpoint, RemovesWhatDeadWritersLeft) {
  fs::create_directories(directory_ / ".step-00000005.writing/plugins/x");
  put(directory_ / ".step-00000005.writing/plugins/x/rank-0.bin", "half");
  saved(5);
  EXPECT_EQ(names_in(directory_), std::vector<std::string>{"step-00000005"});
  EXPECT_TRUE(open_checkpoint(directory_ / "step-00000005")->verify().ok());
}

TEST_F(Checkpoint, AWriterThatIsDroppedLeavesNothing) {
  {
    auto writer = CheckpointWriter::open(directory_, 5, true);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(writer->write_bytes("plugins/a/rank-0.bin", "x").ok());
    EXPECT_EQ(names_in(directory_), std::vector<std::string>{".step-00000005.writing"});
  }
  EXPECT_TRUE(names_in(directory_).empty());
  EXPECT_EQ(CheckpointWriter::open(directory_, 5, false).error().code, ErrorCode::kUnavailable);
}

TEST_F(Checkpoint, KeepsTheNewestOnes) {
  for (std::int64_t step = 1; step <= 5; ++step) saved(step, 2);
  EXPECT_EQ(names_in(directory_), (std::vector<std::string>{"step-00000004", "step-00000005"}));
  // The one just written stays, even where others have higher steps.
  saved(1, 2);
  EXPECT_EQ(names_in(directory_), (std::vector<std::string>{"step-00000001", "step-00000005"}));
}

TEST_F(Checkpoint, ReplacesOneOfTheSameStep) {
  put(saved(3) / "extra", "of the first");
  const fs::path path = saved(3);
  EXPECT_FALSE(fs::exists(path / "extra"));
  EXPECT_EQ(names_in(directory_), std::vector<std::string>{"step-00000003"});
  EXPECT_TRUE(open_checkpoint(path)->verify().ok());
}

TEST_F(Checkpoint, CommitsOnlyWhatIsThere) {
  auto writer = CheckpointWriter::open(directory_, 1, true);
  const auto record = writer->write_bytes("a.bin", "four");
  Manifest manifest;
  manifest.files = {*record, {"b.bin", 4, record->sha256}};
  EXPECT_FALSE(writer->commit(manifest, 0).ok());
  manifest.files = {*record, *record};
  EXPECT_FALSE(writer->commit(manifest, 0).ok());
}

// A disk that is full is, to a writer, a write that fails; a limit on file
// sizes makes one without a disk of our own.
TEST_F(Checkpoint, AFullDiskIsAnErrorAndLeavesThePreviousOne) {
  saved(1);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit tight{4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  std::string message;
  {
    auto writer = CheckpointWriter::open(directory_, 2, true);
    const auto record = writer->write_tensors(kModelFile, {{"w", at::zeros({4096})}});
    if (!record) message = record.error().message;
  }
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, old_handler);
  EXPECT_EQ(message, "cannot write " + (directory_ / ".step-00000002.writing" / kModelFile).string() +
                         ": File too large");
  EXPECT_EQ(names_in(directory_), std::vector<std::string>{"step-00000001"});
  EXPECT_TRUE(open_checkpoint(directory_ / "step-00000001")->verify().ok());
}

TEST(Manifest, RefusesAStateThatIsNotText) {
  EXPECT_FALSE(encode_manifest(Manifest{.state = {{"key", "\xff\xfe"}}}).ok());
}

TEST(FileRecords, TravelAsText) {
  const std::vector<FileRecord> records{{"a/b.bin", 17, std::string(64, '0')},
                                        {"c", 0, std::string(64, 'f')}};
  EXPECT_EQ(*decode_records(encode_records(records)), records);
  for (const std::string bad :
       {"", "{}", "[1]", R"([{"name":"a"}])", R"([{"name":"a","size":-1,"sha256":""}])"}) {
    EXPECT_FALSE(decode_records(bad).ok()) << bad;
  }
}

TEST(ParamsSha256, HashesRawBytesInNameOrder) {
  const at::Tensor a = at::tensor({1.0F, 2.0F});
  const at::Tensor b = at::tensor({3.0F});
  const float bytes[] = {1, 2, 3};
  const std::string expected = to_hex(sha256({reinterpret_cast<const char*>(bytes), sizeof bytes}));
  EXPECT_EQ(params_sha256({{"a", a}, {"b", b}}), expected);
  EXPECT_EQ(params_sha256({{"b", b}, {"a", a}}), expected);
  EXPECT_NE(params_sha256({{"b", a}, {"a", b}}), expected);
}

}  // namespace
}  // namespace bulkhead
