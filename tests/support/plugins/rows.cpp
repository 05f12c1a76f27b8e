// Changes rows in ways that tests can see; some it spoils.
#include <string>

#include "bulkhead/plugin.h"

struct Rows : bulkhead::Plugin {
  // Each row twice, the second time with a draw; the column "spoil" says what to give instead.
  bulkhead::Json preprocess(bulkhead::Json rows, bulkhead::Context& ctx) override {
    if (rows.has("spoil")) return spoilt(rows.at("spoil").at(0).text());
    ctx.log("chunk " + std::to_string(ctx.micro_batch) + ": " + std::to_string(rows.at("text").size()));
    bulkhead::Json texts;
    for (const bulkhead::Json& text : rows.at("text").items()) {
      texts.push_back(text);
      texts.push_back(text.is_null() ? text
                                     : bulkhead::Json(text.text() + std::to_string(ctx.rng.below(1000))));
    }
    return bulkhead::Json::map({{"text", texts}, {"from", same(texts.size())}});
  }
  // All but every third.
  bool keep(const bulkhead::Json& row, bulkhead::Context& ctx) override {
    ctx.log(std::to_string(*ctx.sample) + " " + row.at("text").text() + " " +
            std::to_string(ctx.rng.below(1000)));
    return *ctx.sample % 3 != 2;
  }
  // A number for each letter; capitals are not learned.
  bulkhead::Encoded encode(const bulkhead::Json& row, bulkhead::Context&) override {
    bulkhead::Encoded made;
    for (const char letter : row.at("text").text()) {
      made.input_ids.push_back(letter);
      if (letter != '!') made.labels.push_back(letter < 'a' ? -100 : letter);
    }
    if (row.has("labels")) made.labels = {row.at("labels").integer()};
    return made;
  }
  // Side by side, behind one another from the right.
  void collate(std::span<const bulkhead::TokenSample> samples, bulkhead::Batch& batch,
               bulkhead::Context& ctx) override {
    std::int64_t longest = 0;
    for (const auto& sample : samples) longest = std::max(longest, sample.input_ids.size());
    const auto rows = static_cast<std::int64_t>(samples.size());
    const auto ids = batch.add<std::int64_t>("input_ids", {rows, longest});
    const auto labels = batch.add<std::int64_t>("labels", {rows, longest});
    for (std::int64_t i = 0; i < rows; ++i) {
      const bulkhead::TokenSample& sample = samples[static_cast<std::size_t>(i)];
      for (std::int64_t j = 0; j < sample.input_ids.size(); ++j) {
        ids(i, longest - 1 - j) = sample.input_ids(j);
        labels(i, longest - 1 - j) = sample.labels(j);
      }
    }
    if (rows > 0) ids(0, 0) = static_cast<std::int64_t>(ctx.rng.below(50));
  }

 private:
  static bulkhead::Json same(std::size_t count) {
    bulkhead::Json list = bulkhead::Json::list();
    for (std::size_t i = 0; i < count; ++i) list.push_back(static_cast<std::int64_t>(i));
    return list;
  }
  static bulkhead::Json spoilt(const std::string& how) {
    if (how == "text") return "rows";
    if (how == "column") return bulkhead::Json::map({{"a", 1}});
    if (how == "lengths") return bulkhead::Json::map({{"a", same(1)}, {"b", same(2)}});
    if (how == "nan") return bulkhead::Json::map({{"a", bulkhead::Json::list({0.0 / 0.0})}});
    return same(1).at("key");  // a mistake of the plugin's
  }
};

BULKHEAD_PLUGIN(Rows)
