#include "models/rope.h"

#include <numbers>

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>

namespace bulkhead {
namespace {

Error mismatch(const std::string& where, const std::string& what) {
  return {ErrorCode::kMismatch, where + what};
}

Result<double> positive(const Value& scaling, const char* key, const std::string& where) {
  const auto found = scaling.find(key);
  if (found == scaling.end()) return mismatch(where, std::string(" lacks ") + key);
  if (!found->is_number() || found->get<double>() <= 0)
    return mismatch(where, "." + std::string(key) + " must be a number greater than 0, not " + found->dump());
  return found->get<double>();
}

std::string type_of(const Value& scaling) {
  for (const char* key : {"rope_type", "type"}) {
    if (scaling.contains(key))
      return scaling[key].is_string() ? scaling[key].get<std::string>() : scaling[key].dump();
  }
  return scaling.contains("factor") ? "" : "default";
}

// "The Llama 3 Herd of Models" (2024) and Meta's reference code: wavelengths that
// fit often into the context of pre-training stay, those that hardly fit are
// stretched by `factor`, those between in part.
Result<at::Tensor> llama3(const at::Tensor& frequencies, const Value& scaling, const std::string& where) {
  const auto factor = positive(scaling, "factor", where);
  const auto low = positive(scaling, "low_freq_factor", where);
  const auto high = positive(scaling, "high_freq_factor", where);
  const auto context = positive(scaling, "original_max_position_embeddings", where);
  for (const auto* number : {&factor, &low, &high, &context}) {
    if (!*number) return number->error();
  }
  if (*high <= *low) return mismatch(where, ".high_freq_factor must be greater than low_freq_factor");
  const at::Tensor wavelengths = 2 * std::numbers::pi / frequencies;
  const at::Tensor stretched = at::where(wavelengths > *context / *low, frequencies / *factor, frequencies);
  const at::Tensor share = (*context / wavelengths - *low) / (*high - *low);
  const at::Tensor mixed = (1 - share) * stretched / *factor + share * stretched;
  const at::Tensor between = (wavelengths >= *context / *high).logical_and(wavelengths <= *context / *low);
  return at::where(between, mixed, stretched);
}

Result<at::Tensor> scaled(const at::Tensor& frequencies, const Value& scaling, const std::string& where) {
  if (scaling.is_null() || scaling.empty()) return frequencies;
  if (!scaling.is_object()) return mismatch(where, " must be a mapping, not " + scaling.dump());
  const std::string type = type_of(scaling);
  if (type == "default") return frequencies;
  if (type == "llama3") return llama3(frequencies, scaling, where);
  if (type != "linear")
    return mismatch(where, ".rope_type: \"" + type + "\" is none of default, linear, llama3");
  const auto factor = positive(scaling, "factor", where);
  if (!factor) return factor.error();
  return frequencies / *factor;
}

}  // namespace

Result<RopeTables> rope_tables(std::int64_t dim, std::int64_t length, double theta, const Value& scaling,
                               const std::string& where) {
  const at::Tensor exponents = at::arange(0, dim, 2, at::kFloat) / static_cast<double>(dim);
  const auto frequencies = scaled(1.0 / at::pow(theta, exponents), scaling, where);
  if (!frequencies) return frequencies.error();
  const at::Tensor angles = at::outer(at::arange(length, at::kFloat), *frequencies);
  return RopeTables{angles.cos(), angles.sin()};
}

}  // namespace bulkhead
