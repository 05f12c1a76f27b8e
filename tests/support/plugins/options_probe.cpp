// Reads one argument of each type.
#include "bulkhead/plugin.h"

struct OptionsProbe : bulkhead::Plugin {
  explicit OptionsProbe(const bulkhead::Options& with) {
    text = with.require<std::string>("path");
    text += " " + std::to_string(with.get("patience", 3));
    text += " " + std::to_string(with.get("rate", 0.5));
    if (with.get("loud", false)) text += " loud";
    for (const int step : with.get<std::vector<int>>("steps", {})) text += " " + std::to_string(step);
    for (const auto& [name, value] : with.get<std::map<std::string, int>>("weights", {}))
      text += " " + name + std::to_string(value);
    text += " " + std::to_string(with.facts().rank);
    text += " " + std::to_string(with.rng().next());
    if (with.get<std::uint8_t>("small", 1) == 0) with.reject("small", "must not be zero");
  }
  std::string state_dict() override { return text; }
  void load_state_dict(std::string_view) override {}

  std::string text;
};

BULKHEAD_PLUGIN(OptionsProbe)
