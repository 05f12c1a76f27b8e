// Exceptions that mean something to the host.  Values only; the hook's thread.
#pragma once

#include <stdexcept>

namespace bulkhead {
inline namespace sdk_v5 {

// The rank could not answer what ctx.all_gather or ctx.weights asked; what()
// is its sentence.
struct AskFailed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Exceptions that are meant to end the run, with those derived from them:
//
//   struct Diverged : std::runtime_error { using runtime_error::runtime_error; };
//   struct Guard : bulkhead::Plugin {
//     using raises = bulkhead::Raises<Diverged>;
//     void on_step_end(bulkhead::Context& ctx) override {
//       if (ctx.metrics.at("loss") > 100) throw Diverged("the loss is above 100");
//     }
//   };
//
// The run then fails on all ranks at the same step, with the reason
// "guard: Diverged: the loss is above 100"; nothing is saved.  Any other
// exception is counted and recorded, and training goes on.
template <class... Errors>
struct Raises {
  // Only where an exception is being handled: it is one of them.
  static bool in_flight() { return (caught<Errors>() || ...); }

 private:
  template <class Error>
  static bool caught() {
    try {
      throw;
    } catch (const Error&) {
      return true;
    } catch (...) {
      return false;
    }
  }
};

namespace entry {

// Thrown by ctx where nobody waits for the call any more (the run ends, the
// rank was replaced): it only brings the hook to its end, so it is no
// std::exception that a plugin would catch.
struct CallAborted {};

}  // namespace entry
}  // namespace sdk_v5
}  // namespace bulkhead
