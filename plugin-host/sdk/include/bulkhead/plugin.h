// All that a C++ plugin includes.
//
//   #include "bulkhead/plugin.h"
//   struct StopAtTwo : bulkhead::Plugin {
//     void on_step_end(bulkhead::Context& ctx) override {
//       if (ctx.metrics.at("loss") < 2.0) ctx.control.stop("the loss is below 2");
//     }
//   };
//   BULKHEAD_PLUGIN(StopAtTwo)
//
// A plugin runs alone in its own process, on one thread, one call at a time,
// in an order that is a function of step numbers only.  It may crash: it is
// started again and the call is repeated.  An exception is an answer: it is
// counted and recorded, and the process goes on.  Only the standard library is
// needed; build with -std=c++20 -shared -fPIC.
#pragma once

#include "bulkhead/batch.h"    // IWYU pragma: export
#include "bulkhead/config.h"   // IWYU pragma: export
#include "bulkhead/context.h"  // IWYU pragma: export
#include "bulkhead/entry.h"    // IWYU pragma: export
#include "bulkhead/errors.h"   // IWYU pragma: export
#include "bulkhead/hooks.h"    // IWYU pragma: export
#include "bulkhead/image.h"    // IWYU pragma: export
#include "bulkhead/json.h"     // IWYU pragma: export
#include "bulkhead/options.h"  // IWYU pragma: export
#include "bulkhead/rows.h"     // IWYU pragma: export

// Makes the class the library's plugin.  Once per library, at file scope.
#define BULKHEAD_PLUGIN(Class)                                                                              \
  extern "C" {                                                                                              \
  __attribute__((section(".note.bulkhead"), used,                                                           \
                 aligned(4))) constexpr ::bulkhead::abi::Note bulkhead_note_v4 = ::bulkhead::entry::note(); \
  __attribute__((visibility("default"))) const ::bulkhead::abi::Table* bulkhead_plugin_v5() {               \
    return ::bulkhead::entry::table<Class>(#Class);                                                         \
  }                                                                                                         \
  }
