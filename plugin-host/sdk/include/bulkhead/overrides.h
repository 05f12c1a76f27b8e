// Which hooks a plugin's class overrides and what else it declares, found out
// at compile time.  Nothing here is for plugin authors.
#pragma once

#include <array>
#include <concepts>
#include <string_view>
#include <type_traits>
#include <vector>

#include "bulkhead/abi.h"
#include "bulkhead/hooks.h"

// Every hook once, as in the host's table.
// clang-format off
#define BULKHEAD_HOOKS(HOOK)                                                                                \
  HOOK(configure) HOOK(setup) HOOK(on_train_start) HOOK(on_train_end)                                       \
  HOOK(on_epoch_start) HOOK(on_epoch_end) HOOK(on_exception)                                                \
  HOOK(on_step_start) HOOK(on_backward_end) HOOK(on_substep_end)                                            \
  HOOK(on_optimizer_step_start) HOOK(on_optimizer_step_end)                                                 \
  HOOK(on_step_end) HOOK(should_stop) HOOK(on_log)                                                          \
  HOOK(on_validate_start) HOOK(on_validate_step_end) HOOK(on_validate_end)                                  \
  HOOK(on_test_start) HOOK(on_test_step_end) HOOK(on_test_end)                                              \
  HOOK(on_save_start) HOOK(on_save_end) HOOK(on_load)                                                       \
  HOOK(preprocess) HOOK(keep) HOOK(encode)                                                                  \
  HOOK(transform_image) HOOK(transform_caption) HOOK(transform_sample)                                      \
  HOOK(collate)                                                                                             \
  HOOK(transform_train_batch) HOOK(transform_validate_batch) HOOK(transform_test_batch)                     \
  HOOK(state_dict) HOOK(load_state_dict)
// clang-format on

namespace bulkhead {
inline namespace sdk_v5 {
namespace entry {

#define BULKHEAD_NAME(hook) std::string_view{#hook},
inline constexpr auto kHookNames = std::to_array<std::string_view>({BULKHEAD_HOOKS(BULKHEAD_NAME)});
#undef BULKHEAD_NAME

// ----- Which hooks does a class override? -----

template <class Member>
struct Signature;
template <class Class, class Return, class... Arguments>
struct Signature<Return (Class::*)(Arguments...)> {
  using Type = Return(Arguments...);
};
template <class Class, class Return, class... Arguments>
struct Signature<Return (Class::*)(Arguments...) noexcept> {
  using Type = Return(Arguments...);
};
template <class Member, class Base>
concept SameSignature = requires {
  typename Signature<Member>::Type;
}
&&std::same_as<typename Signature<Member>::Type, typename Signature<Base>::Type>;

// &X::hook is a pointer to a member of the class that declares it: of Plugin as
// long as nobody overrides it.  One that cannot be named (private, overloaded)
// was declared anew.
template <class X>
struct Overrides {
#define BULKHEAD_OVERRIDES(hook)                                                                        \
  static constexpr bool hook() {                                                                        \
    if constexpr (requires { &X::hook; }) {                                                             \
      static_assert(SameSignature<decltype(&X::hook), decltype(&Plugin::hook)>, #hook                   \
                    " has other arguments than bulkhead::Plugin::" #hook " and would never be called"); \
      return !std::same_as<decltype(&X::hook), decltype(&Plugin::hook)>;                                \
    } else {                                                                                            \
      return true;                                                                                      \
    }                                                                                                   \
  }
  BULKHEAD_HOOKS(BULKHEAD_OVERRIDES)
#undef BULKHEAD_OVERRIDES
};

// Their names, in the table's order.
template <class X>
const std::vector<abi::Text>& hooks_of() {
  static const std::vector<abi::Text> kHooks = [] {
    std::vector<abi::Text> hooks;
#define BULKHEAD_ADD(hook) \
  if (Overrides<X>::hook()) hooks.push_back(abi::text(#hook));
    BULKHEAD_HOOKS(BULKHEAD_ADD)
#undef BULKHEAD_ADD
    return hooks;
  }();
  return kHooks;
}

template <class X>
const std::vector<abi::Text>& claims_of() {
  static const std::vector<abi::Text> kClaims = [] {
    std::vector<abi::Text> claims;
    if constexpr (requires { X::claims; }) {
      for (const auto& claim : X::claims) claims.push_back(abi::text(claim));
    }
    return claims;
  }();
  return kClaims;
}

template <class X>
constexpr bool steers_of() {
  if constexpr (requires { X::steers; }) return X::steers;
  return true;
}
template <class X>
constexpr bool seeded_of() {
  if constexpr (requires { X::seeded; }) return X::seeded;
  return true;
}
template <class X>
constexpr bool stateless_of() {
  if constexpr (requires { X::stateless; }) return X::stateless;
  return !Overrides<X>::state_dict();
}

// Only where an exception of X's is being handled: it ends the run.
template <class X>
bool is_fatal() {
  if constexpr (requires { typename X::raises; }) return X::raises::in_flight();
  return false;
}

}  // namespace entry
}  // namespace sdk_v5
}  // namespace bulkhead

#undef BULKHEAD_HOOKS
