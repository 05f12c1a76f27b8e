// Futures that abort() can end.
//
// Gloo cannot be interrupted: a rank inside a collective whose peer hangs
// waits until the timeout.  So nobody waits for gloo's own futures but for ones
// of ours, which end either with gloo's or when abort() says so.
//
// watch() on the compute thread, abort() from any thread; gloo's threads
// settle.  This is the second mutex of the code base (the first is the event
// loop's), because abort() is the second method open to any thread.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include <torch/csrc/distributed/c10d/Work.hpp>

namespace bulkhead {

class AbortableWork : public std::enable_shared_from_this<AbortableWork> {
 public:
  using FuturePtr = c10::intrusive_ptr<c10::ivalue::Future>;

  // A future that ends as `work` does, or with an error on abort().
  FuturePtr watch(c10d::Work& work);

  // Ends every open future, and every later one at once, with an error.
  void abort();
  bool aborted() const;

 private:
  // False once aborted.
  bool enter(const FuturePtr& future);
  // True for exactly one caller per future: who takes it settles it.
  bool take(const FuturePtr& future);

  mutable std::mutex mutex_;
  bool aborted_ = false;
  std::vector<FuturePtr> open_;
};

}  // namespace bulkhead
