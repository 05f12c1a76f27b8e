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
#include "bulkhead/invoke.h"
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
inline namespace sdk_v5 {
namespace entry {

// ----- Exceptions become answers here -----

inline std::string type_name(const std::type_info* type) {
  if (type == nullptr) return "unknown";
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      ::abi::__cxa_demangle(type->name(), nullptr, nullptr, &status), std::free);
  return status == 0 ? name.get() : type->name();
}

// X: the plugin's class.
template <class X, class Work>
void guarded(const abi::Host& host, const Work& work) {
  const auto fail = [&](const std::string& type, std::string_view message) {
    host.fail(host.self, abi::text(type), abi::text(message), is_fatal<X>());
  };
  try {
    work();
  } catch (const CallAborted&) {  // nobody waits for an answer
  } catch (const std::exception& error) {
    fail(type_name(&typeid(error)), error.what());
  } catch (const std::string& error) {
    fail("std::string", error);
  } catch (const char* error) {
    fail("const char*", error);
  } catch (...) {
    fail(type_name(::abi::__cxa_current_exception_type()), "not a std::exception");
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
  guarded<X>(*host, [&] {
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

template <class X>
void call(void* plugin, const abi::Facts* facts, const abi::Call* call, const abi::Host* host) {
  guarded<X>(*host, [&] {
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
      call<X>,
      destroy};
  return &kTable;
}

}  // namespace entry
}  // namespace sdk_v5
}  // namespace bulkhead
