// CSV: the format's corners, the standardisation, and one sentence per mistake.
#include "data/csv.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

class CsvFile : public testing::Test {
 protected:
  Result<TableData> load(const std::string& content, const std::string& target = "label",
                         double validation = 0.25) {
    std::ofstream(path_, std::ios::binary) << content;
    DataConfig config;
    config.type = "csv";
    config.path = path_.string();
    config.target = target;
    config.validation_fraction = validation;
    return load_csv(config);
  }
  std::string failure(const std::string& content, const std::string& target = "label") {
    const auto table = load(content, target);
    return table ? "" : table.error().message;
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::filesystem::path path_ = std::filesystem::path(testing::TempDir()) /
                                (std::string("csv_") + std::to_string(getpid()) + "_" +
                                 testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST(Csv, ReadsQuotedFieldsAsRfc4180SaysAndKnowsTheirLines) {
  const auto records = parse_csv(
      "\xEF\xBB\xBF"
      "a,\"b \"\"c\"\"\",d\r\n\r\n\"1,\n2\",,3\n4,5,6",
      "f");
  ASSERT_TRUE(records) << records.error().message;
  ASSERT_EQ(records->size(), 3U);
  EXPECT_EQ((*records)[0].fields, (std::vector<std::string>{"a", "b \"c\"", "d"}));
  EXPECT_EQ((*records)[1].fields, (std::vector<std::string>{"1,\n2", "", "3"}));
  EXPECT_EQ((*records)[1].line, 3);
  EXPECT_EQ((*records)[2].line, 5);
}

TEST(Csv, RefusesBrokenQuotes) {
  EXPECT_NE(parse_csv("a,b\n\"1,2\n", "f").error().message.find("f:2: a quote that is never closed"),
            std::string::npos);
  EXPECT_NE(parse_csv("a,b\n\"1\"x,2\n", "f").error().message.find("f:2: text after a closing quote"),
            std::string::npos);
  EXPECT_NE(parse_csv("a,b\n1\"x,2\n", "f").error().message.find("f:2: a quote inside"), std::string::npos);
}

TEST_F(CsvFile, StandardisesWithTheTrainingRowsAlone) {
  const auto table = load("x,label,y\n1,b,5\n3,a,5\n2,a,5\n100,b,9\n");
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(table->rows, 4);
  EXPECT_EQ(table->sizes.train, 3);
  EXPECT_EQ(table->columns, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(table->classes, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(table->labels, (std::vector<std::int64_t>{1, 0, 0, 1}));
  const float deviation = std::sqrt(2.0F / 3.0F);
  EXPECT_FLOAT_EQ(table->features[0], -1.0F / deviation);
  EXPECT_FLOAT_EQ(table->features[6], 98.0F / deviation);
  // y is constant in the training rows, so it is only centred.
  EXPECT_FLOAT_EQ(table->features[1], 0.0F);
  EXPECT_FLOAT_EQ(table->features[7], 4.0F);
}

TEST_F(CsvFile, KeepsItsLastRowsForTheTestAndThoseBeforeForValidation) {
  std::ofstream(path_, std::ios::binary) << "x,label\n1,a\n2,b\n3,a\n4,b\n5,a\n6,b\n7,a\n8,b\n9,a\n10,b\n";
  DataConfig config;
  config.type = "csv";
  config.path = path_.string();
  config.target = "label";
  config.validation_fraction = 0.2;
  config.test_fraction = 0.3;
  const auto table = load_csv(config);
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(table->sizes.train, 5);
  EXPECT_EQ(table->sizes.validation, 2);
  EXPECT_EQ(table->sizes.test, 3);
  // 1 … 5 train: their mean is 3 and their deviation √2.
  EXPECT_FLOAT_EQ(table->features[9], 7.0F / std::sqrt(2.0F));
}

TEST_F(CsvFile, NamesTheKeysThatLeaveNoRowForTraining) {
  const auto table = load("x,label\n1,a\n2,b\n", "label", 0.9);
  ASSERT_FALSE(table);
  EXPECT_EQ(table.error().message, "data.validation_fraction: with data.test_fraction it leaves no row of " +
                                       path_.string() + " for training");
}

TEST_F(CsvFile, SortsIntegerLabelsByNumber) {
  const auto table = load("label,x\n10,1\n9,2\n-1,3\n10,4\n");
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(table->classes, (std::vector<std::string>{"-1", "9", "10"}));
}

TEST_F(CsvFile, NamesLineAndColumnOfACellThatIsNoNumber) {
  EXPECT_NE(failure("x,label\n1,a\nabc,b\n").find(path_.string() + ":3: column 'x' holds 'abc'"),
            std::string::npos);
  EXPECT_NE(failure("x,label\n1,a\n,b\n").find(":3: column 'x' is empty"), std::string::npos);
  EXPECT_NE(failure("x,label\nnan,a\n1,b\n").find("not a finite number"), std::string::npos);
  EXPECT_NE(failure("x,label\n1e999,a\n1,b\n").find("not a finite number"), std::string::npos);
}

TEST_F(CsvFile, NamesTheNearestColumnForAnUnknownTarget) {
  EXPECT_NE(failure("x,label\n1,a\n2,b\n", "lable").find("no column 'lable'; did you mean 'label'?"),
            std::string::npos);
  EXPECT_NE(failure("x,label\n1,a\n2,b\n", "").find("data.target: missing"), std::string::npos);
}

TEST_F(CsvFile, RefusesARowOfAnotherLength) {
  EXPECT_NE(failure("x,label\n1,a\n2,b,c\n").find(":3: the row has 3 fields, the header 2"),
            std::string::npos);
}

TEST_F(CsvFile, RefusesABadHeader) {
  EXPECT_NE(failure("x,x,label\n1,2,a\n").find("'x' twice"), std::string::npos);
  EXPECT_NE(failure("x,,label\n1,2,a\n").find("a column without a name"), std::string::npos);
  EXPECT_NE(failure("label\na\n").find("the header has one column"), std::string::npos);
}

TEST_F(CsvFile, RefusesWhatCannotBeLearnt) {
  EXPECT_NE(failure("x,label\n1,a\n2,a\n").find("one class only"), std::string::npos);
  EXPECT_NE(failure("x,label\n1,a\n2,\n").find(":3: column 'label' has no label"), std::string::npos);
  EXPECT_NE(failure("x,label\n").find("needs a header row and at least one row"), std::string::npos);
  EXPECT_NE(failure("").find("needs a header row"), std::string::npos);
}

TEST(Csv, ReadsTheDigits) {
  DataConfig config;
  config.path = BULKHEAD_TEST_DATA "/csv/digits.csv";
  config.target = "digit";
  const auto table = load_csv(config);
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(table->rows, 2000);
  EXPECT_EQ(table->sizes.train, 1800);
  EXPECT_EQ(table->columns.size(), 16U);
  EXPECT_EQ(table->classes.size(), 10U);
  EXPECT_EQ(table->labels.front(), 5);  // MNIST's first training digit
}

}  // namespace
}  // namespace bulkhead
