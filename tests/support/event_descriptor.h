// An eventfd that tests signal by hand.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "protocol/event_loop.h"

namespace bulkhead {

inline void run_all(EventLoop& loop) {
  while (loop.run_ready()) {
  }
}

struct EventDescriptor {
  int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  ~EventDescriptor() { ::close(fd); }
  void signal() const { ASSERT_EQ(::eventfd_write(fd, 1), 0); }
  void take() const {
    eventfd_t value = 0;
    ASSERT_EQ(::eventfd_read(fd, &value), 0);
  }
};

}  // namespace bulkhead
