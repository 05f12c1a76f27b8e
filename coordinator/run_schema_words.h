// The short words in which the rows of the schema are written.
//
// For run_keys.cpp, model_keys.cpp and plugin_keys.cpp only.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "run_schema.h"

namespace bulkhead {

inline std::vector<KeyDefault> always(std::string text) { return {{"", "", std::move(text)}}; }
inline KeyRange at_least(double low) { return {.at_least = low, .above = {}, .at_most = {}, .below = {}}; }
inline KeyRange above(double low) { return {.at_least = {}, .above = low, .at_most = {}, .below = {}}; }
inline KeyRange from_to(double low, double high) {
  return {.at_least = low, .above = {}, .at_most = high, .below = {}};
}
inline KeyRange from_below(double low, double high) {
  return {.at_least = low, .above = {}, .at_most = {}, .below = high};
}

// The rows of the section `model`.
std::vector<KeySpec> model_keys();

}  // namespace bulkhead
