#include "protocol/messages.h"

#include <algorithm>
#include <map>

namespace bulkhead {

void Control::merge(const Control& other) {
  if (other.stop && (!stop || reason.empty())) reason = other.reason;
  stop |= other.stop;
  stop_epoch |= other.stop_epoch;
  save |= other.save;
  validate |= other.validate;
  log |= other.log;
  settings.insert(settings.end(), other.settings.begin(), other.settings.end());
}

std::vector<Setting> chosen(const std::vector<Setting>& settings) {
  std::map<std::string, Setting> winners;
  for (const Setting& setting : settings) {
    const auto [found, is_first] = winners.try_emplace(setting.name, setting);
    const Setting& best = found->second;
    const bool wins =
        setting.plugin != best.plugin ? setting.plugin > best.plugin : setting.rank <= best.rank;
    if (!is_first && wins) found->second = setting;
  }
  std::vector<Setting> result;
  for (const auto& [name, setting] : winners) result.push_back(setting);
  return result;
}

bool PluginTraits::has(std::string_view hook) const {
  return std::find(hooks.begin(), hooks.end(), hook) != hooks.end();
}

Generation generation_of(const Message& message) {
  return std::visit([](const auto& body) { return body.generation; }, message);
}

std::string_view type_of(const Message& message) {
  return std::visit([](const auto& body) { return std::decay_t<decltype(body)>::kType; }, message);
}

std::string refusal(const Hello& hello, std::string_view expected_secret) {
  if (hello.magic != kMagic)
    return "this is not a bulkhead process: its greeting does not begin with \"bulkhead\"";
  if (hello.version_max < kProtocolMin || hello.version_min > kProtocolMax) {
    return "protocol versions do not overlap: this side speaks " + std::to_string(kProtocolMin) + " to " +
           std::to_string(kProtocolMax) + ", the other " + std::to_string(hello.version_min) + " to " +
           std::to_string(hello.version_max) + "; install the same bulkhead on both sides";
  }
  if (hello.secret != expected_secret) return "the secret of this run was not given: BULKHEAD_SECRET differs";
  return {};
}

}  // namespace bulkhead
