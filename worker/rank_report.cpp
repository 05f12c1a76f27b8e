#include "rank_report.h"

#include <set>

namespace bulkhead {
namespace {

// What fits into the control plane's one-round slot with room to spare.
constexpr std::size_t kReasonBytes = 400;

Value control_to_json(const Control& control) {
  return {{"stop", control.stop}, {"stop_epoch", control.stop_epoch},
          {"save", control.save}, {"validate", control.validate},
          {"log", control.log},   {"reason", control.reason.substr(0, kReasonBytes)}};
}

}  // namespace

std::string to_bytes(const RankReport& report) {
  const Value fields = {{"loss", report.loss_sum},
                        {"weight", report.weight},
                        {"correct", report.correct},
                        {"labels", report.labels},
                        {"given_up", report.given_up},
                        {"interrupt", report.interrupt},
                        {"abort", report.abort.substr(0, kReasonBytes)},
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
    Control::visit(report.control,
                   [&](const char* name, auto& member) { fields.at("control").at(name).get_to(member); });
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
  for (const RankReport& report : reports) {
    agreement.loss += report.loss_sum;
    weight += report.weight;
    agreement.accuracy += report.correct;
    labels += report.labels;
    agreement.control.merge(report.control);
    given_up.insert(report.given_up.begin(), report.given_up.end());
    agreement.interrupt |= report.interrupt;
    if (agreement.abort.empty()) agreement.abort = report.abort;
  }
  agreement.loss = weight > 0 ? agreement.loss / weight : 0;
  agreement.accuracy = labels > 0 ? agreement.accuracy / labels : 0;
  agreement.given_up.assign(given_up.begin(), given_up.end());
  return agreement;
}

}  // namespace bulkhead
