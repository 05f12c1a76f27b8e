#include "rank_report.h"

#include <set>

namespace bulkhead {
namespace {

// What fits into the control plane's one-round slot with room to spare.
constexpr std::size_t kReasonBytes = 400;

Value control_to_json(const Control& control) {
  Value settings = Value::array();
  for (const Setting& setting : chosen(control.settings)) {
    const Value value = setting.value ? Value(*setting.value) : Value(nullptr);
    settings.push_back({setting.name, value, setting.plugin, setting.rank});
  }
  return {{"stop", control.stop}, {"stop_epoch", control.stop_epoch},
          {"save", control.save}, {"validate", control.validate},
          {"log", control.log},   {"reason", control.reason.substr(0, kReasonBytes)},
          {"settings", settings}};
}

Control control_from(const Value& json) {
  Control control;
  json.at("stop").get_to(control.stop);
  json.at("stop_epoch").get_to(control.stop_epoch);
  json.at("save").get_to(control.save);
  json.at("validate").get_to(control.validate);
  json.at("log").get_to(control.log);
  json.at("reason").get_to(control.reason);
  for (const Value& item : json.at("settings")) {
    Setting& setting = control.settings.emplace_back();
    item.at(0).get_to(setting.name);
    if (!item.at(1).is_null()) setting.value = item.at(1).get<double>();
    item.at(2).get_to(setting.plugin);
    item.at(3).get_to(setting.rank);
  }
  return control;
}

}  // namespace

std::string to_bytes(const RankReport& report) {
  const Value fields = {{"loss", report.loss_sum},
                        {"weight", report.weight},
                        {"correct", report.correct},
                        {"labels", report.labels},
                        {"given_up", report.given_up},
                        {"interrupt", report.interrupt.substr(0, kReasonBytes)},
                        {"abort", report.abort.substr(0, kReasonBytes)},
                        {"fatal", report.fatal.substr(0, kReasonBytes)},
                        {"weights_of", report.weights_of},
                        {"control", control_to_json(report.control)}};
  const std::vector<std::uint8_t> packed = Value::to_msgpack(fields);
  return {packed.begin(), packed.end()};
}

Result<RankReport> report_from(const std::string& bytes) {
  try {
    const Value fields = Value::from_msgpack(bytes);
    RankReport report;
    fields.at("loss").get_to(report.loss_sum);
    fields.at("weight").get_to(report.weight);
    fields.at("correct").get_to(report.correct);
    fields.at("labels").get_to(report.labels);
    fields.at("given_up").get_to(report.given_up);
    fields.at("interrupt").get_to(report.interrupt);
    fields.at("abort").get_to(report.abort);
    fields.at("fatal").get_to(report.fatal);
    fields.at("weights_of").get_to(report.weights_of);
    report.control = control_from(fields.at("control"));
    return report;
  } catch (const Value::exception& error) {
    return Error{ErrorCode::kMalformed, std::string("a rank's report: ") + error.what()};
  }
}

Agreement agree(const std::vector<RankReport>& reports) {
  Agreement agreement;
  double weight = 0;
  double labels = 0;
  std::set<std::int64_t> given_up;
  std::int64_t weights_of = -1;
  for (std::size_t rank = 0; rank < reports.size(); ++rank) {
    const RankReport& report = reports[rank];
    agreement.loss += report.loss_sum;
    weight += report.weight;
    agreement.accuracy += report.correct;
    labels += report.labels;
    agreement.control.merge(report.control);
    given_up.insert(report.given_up.begin(), report.given_up.end());
    if (agreement.interrupt.empty()) agreement.interrupt = report.interrupt;
    if (agreement.abort.empty()) agreement.abort = report.abort;
    if (agreement.fatal.empty()) agreement.fatal = report.fatal;
    if (report.weights_of > weights_of) {
      weights_of = report.weights_of;
      agreement.weights_root = static_cast<std::int64_t>(rank);
    }
  }
  agreement.control.settings = chosen(agreement.control.settings);
  agreement.loss = weight > 0 ? agreement.loss / weight : 0;
  agreement.accuracy = labels > 0 ? agreement.accuracy / labels : 0;
  agreement.given_up.assign(given_up.begin(), given_up.end());
  return agreement;
}

}  // namespace bulkhead
