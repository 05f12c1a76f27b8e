// What BULKHEAD_PLUGIN writes: the functions through which the host makes a
// plugin and calls it.  An exception of the plugin's becomes an answer here; none
// crosses into the host.  Nothing here is for plugin authors.
#pragma once

#include <concepts>
#include <cstdlib>
#include <cxxabi.h>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <vector>

#include "bulkhead/abi.h"
#include "bulkhead/hooks.h"
#include "bulkhead/options.h"
#include "bulkhead/overrides.h"

#define BULKHEAD_STRING_OF(x) #x
#define BULKHEAD_STRING(x) BULKHEAD_STRING_OF(x)
#if defined(_LIBCPP_VERSION)
#define BULKHEAD_COMPILER __VERSION__ " libc++ " BULKHEAD_STRING(_LIBCPP_VERSION)
#else
#define BULKHEAD_COMPILER __VERSION__ " libstdc++ " BULKHEAD_STRING(__GLIBCXX__)
#endif
#if defined(__clang__)
#define BULKHEAD_COMPILER_NAME "clang "
#else
#define BULKHEAD_COMPILER_NAME "gcc "
#endif

namespace bulkhead {
inline namespace sdk_v1 {
namespace entry {

// ----- Exceptions become answers here -----

inline std::string type_name(const std::type_info* type) {
  if (type == nullptr) return "unknown";
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      ::abi::__cxa_demangle(type->name(), nullptr, nullptr, &status), std::free);
  return status == 0 ? name.get() : type->name();
}

template <class Work>
void guarded(const abi::Host& host, const Work& work) {
  try {
    work();
  } catch (const std::exception& error) {
    host.fail(host.self, abi::text(type_name(&typeid(error))), abi::text(error.what()));
  } catch (const std::string& error) {
    host.fail(host.self, abi::text("std::string"), abi::text(error));
  } catch (const char* error) {
    host.fail(host.self, abi::text("const char*"), abi::text(error));
  } catch (...) {
    host.fail(host.self, abi::text(type_name(::abi::__cxa_current_exception_type())),
              abi::text("not a std::exception"));
  }
}

// ----- The table's functions -----

inline void refuse(const abi::Host& host, const OptionError& error) {
  std::vector<abi::Text> candidates;
  for (const std::string& name : error.candidates) candidates.push_back(abi::text(name));
  host.refuse(host.self, abi::text(error.key), abi::text(error.what()), candidates.data(), candidates.size());
}

inline OptionError unknown_argument(const std::string& key, const std::vector<std::string>& known) {
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
  return {
      key,
      "with." + key + " is not an argument (" + (list.empty() ? "there are none" : "known: " + list) + ")",
      known};
}

template <class X>
std::unique_ptr<X> construct(const Options& options) {
  if constexpr (std::constructible_from<X, const Options&>) {
    return std::make_unique<X>(options);
  } else {
    static_assert(std::default_initializable<X>,
                  "a plugin's constructor takes const bulkhead::Options&, or nothing");
    return std::make_unique<X>();
  }
}

template <class X>
void* create(const abi::Facts* facts, const abi::Value* with, const std::uint64_t* key,
             const abi::Host* host) {
  Plugin* made = nullptr;
  guarded(*host, [&] {
    try {
      const Options options(*facts, *with, key);
      std::unique_ptr<Plugin> plugin = construct<X>(options);
      if (const auto unread = options.unread(); !unread.empty()) {
        throw unknown_argument(unread.front(), options.read());
      }
      made = plugin.release();
    } catch (const OptionError& error) {
      refuse(*host, error);
    }
  });
  return made;
}

inline void destroy(void* plugin) { delete static_cast<Plugin*>(plugin); }

using Invoke = void (*)(Plugin&, Context&, const abi::Call&, const abi::Host&);

struct Hook {
  std::string_view name;
  Invoke invoke;
};

template <void (Plugin::*kMember)(Context&)>
void notify(Plugin& plugin, Context& ctx, const abi::Call&, const abi::Host&) {
  (plugin.*kMember)(ctx);
}

inline void poll_stop(Plugin& plugin, Context& ctx, const abi::Call&, const abi::Host&) {
  if (!plugin.should_stop(ctx)) return;
  if (!(ctx.control.flags() & abi::kStop)) ctx.control.stop(ctx.plugin + " said should_stop");
}

inline void transform(Plugin& plugin, Context& ctx, const abi::Call& call, const abi::Host& host) {
  Batch batch(call.tensors, call.tensor_count);
  plugin.transform_train_batch(batch, ctx);
  batch.hand_over(host);
}

inline void save_state(Plugin& plugin, Context&, const abi::Call&, const abi::Host& host) {
  const std::string state = plugin.state_dict();
  host.state(host.self, abi::text(state));
}

inline void load_state(Plugin& plugin, Context&, const abi::Call& call, const abi::Host&) {
  plugin.load_state_dict(abi::view(call.state));
}

// clang-format off
inline Invoke find_hook(std::string_view name) {
#define BULKHEAD_NOTIFY(hook) \
  if (name == #hook) return notify<&Plugin::hook>;
  if (name == "should_stop") return poll_stop;
  if (name == "transform_train_batch") return transform;
  if (name == "state_dict") return save_state;
  if (name == "load_state_dict") return load_state;
  BULKHEAD_NOTIFY(on_step_start)
  BULKHEAD_NOTIFY(on_step_end)
  BULKHEAD_NOTIFY(setup)
  BULKHEAD_NOTIFY(on_train_start)
  BULKHEAD_NOTIFY(on_train_end)
  BULKHEAD_NOTIFY(on_epoch_start)
  BULKHEAD_NOTIFY(on_epoch_end)
  BULKHEAD_NOTIFY(on_validate_start)
  BULKHEAD_NOTIFY(on_validate_step_end)
  BULKHEAD_NOTIFY(on_validate_end)
  BULKHEAD_NOTIFY(on_save_start)
  BULKHEAD_NOTIFY(on_save_end)
  BULKHEAD_NOTIFY(on_load)
#undef BULKHEAD_NOTIFY
  return nullptr;
}
// clang-format on

inline void call(void* plugin, const abi::Facts* facts, const abi::Call* call, const abi::Host* host) {
  guarded(*host, [&] {
    const Invoke invoke = find_hook(abi::view(call->hook));
    if (invoke == nullptr)
      throw std::invalid_argument("there is no hook " + std::string(abi::view(call->hook)));
    Context ctx(*facts, *call, *host);
    invoke(*static_cast<Plugin*>(plugin), ctx, *call, *host);
    if (ctx.control.flags() != 0)
      host->control(host->self, ctx.control.flags(), abi::text(ctx.control.reason()));
  });
}

constexpr abi::Note note() {
  abi::Note note{sizeof(abi::Note::name), sizeof(abi::Note::version) + sizeof(abi::Note::compiler),
                 abi::kNoteType,          {},
                 abi::kVersion,           {}};
  std::size_t at = 0;
  for (const char letter : abi::kNoteName) note.name[at++] = letter;
  at = 0;
  for (const char letter : std::string_view{BULKHEAD_COMPILER_NAME BULKHEAD_COMPILER}) {
    if (at + 1 < sizeof note.compiler) note.compiler[at++] = letter;
  }
  return note;
}

// `written` is the class as BULKHEAD_PLUGIN was given it.
template <class X>
const abi::Table* table(std::string_view written) {
  static_assert(std::derived_from<X, Plugin>,
                "BULKHEAD_PLUGIN needs a class that derives from bulkhead::Plugin");
  static_assert(!std::is_abstract_v<X>, "BULKHEAD_PLUGIN needs a class that can be made");
  static_assert(Overrides<X>::state_dict() == Overrides<X>::load_state_dict(),
                "state_dict and load_state_dict are overridden together");
  static_assert(!(stateless_of<X>() && Overrides<X>::state_dict()), "a stateless plugin has no state_dict");
  const std::size_t colons = written.rfind("::");
  static const abi::Table kTable{
      abi::kVersion,
      steers_of<X>(),
      stateless_of<X>(),
      seeded_of<X>(),
      abi::text(colons == std::string_view::npos ? written : written.substr(colons + 2)),
      hooks_of<X>().size(),
      hooks_of<X>().data(),
      claims_of<X>().size(),
      claims_of<X>().data(),
      create<X>,
      call,
      destroy};
  return &kTable;
}

}  // namespace entry
}  // namespace sdk_v1
}  // namespace bulkhead
