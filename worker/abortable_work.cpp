#include "abortable_work.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace bulkhead {
namespace {

void fail_as_aborted(c10::ivalue::Future& future) {
  future.setError(std::make_exception_ptr(std::runtime_error("the communicator was aborted")));
}

}  // namespace

AbortableWork::FuturePtr AbortableWork::watch(c10d::Work& work) {
  const FuturePtr inner = work.getFuture();
  FuturePtr outer = c10::make_intrusive<c10::ivalue::Future>(inner->elementType());
  if (!enter(outer)) {
    fail_as_aborted(*outer);
    return outer;
  }
  inner->addCallback([self = shared_from_this(), outer](c10::ivalue::Future& done) {
    if (!self->take(outer)) return;
    if (done.hasError()) {
      outer->setError(done.exception_ptr());
    } else {
      outer->markCompleted(done.constValue());
    }
  });
  return outer;
}

bool AbortableWork::enter(const FuturePtr& future) {
  const std::lock_guard lock(mutex_);
  if (!aborted_) open_.push_back(future);
  return !aborted_;
}

void AbortableWork::abort() {
  std::vector<FuturePtr> open;
  {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    open.swap(open_);
  }
  for (const FuturePtr& future : open) fail_as_aborted(*future);
}

bool AbortableWork::aborted() const {
  const std::lock_guard lock(mutex_);
  return aborted_;
}

bool AbortableWork::take(const FuturePtr& future) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find(open_.begin(), open_.end(), future);
  if (found == open_.end()) return false;
  open_.erase(found);
  return true;
}

}  // namespace bulkhead
