// Ranks as threads of one test: each gets a rendezvous of its own, as separate
// processes would, over a port that rank 0 has chosen.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "communicator.h"

namespace bulkhead::testing {

inline constexpr std::chrono::milliseconds kMeetTimeout{30'000};

// c10d's flight recorder is one for the process and takes it for granted that a
// process is one rank: as threads they run into each other in it.
inline const bool kNoFlightRecorder =
    ::setenv("TORCH_FR_BUFFER_SIZE", "0", 1) == 0 && ::setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "0", 1) == 0;

// A gloo communicator for `rank`, or a failed test and null.
inline std::unique_ptr<Communicator> meet(WorkerId rank, std::int64_t world_size, const Rendezvous& hosted,
                                          Generation generation = Generation(1)) {
  Rendezvous rendezvous = hosted;
  if (rank.value != 0) {
    auto connected = Rendezvous::connect("127.0.0.1", hosted.port(), kMeetTimeout);
    EXPECT_TRUE(connected.ok()) << connected.error().message;
    if (!connected) return nullptr;
    rendezvous = *std::move(connected);
  }
  CommunicatorOptions options;
  options.rank = rank;
  options.world_size = world_size;
  options.generation = generation;
  options.timeout = kMeetTimeout;
  auto made = make_gloo_communicator(rendezvous, options);
  EXPECT_TRUE(made.ok()) << made.error().message;
  return made ? *std::move(made) : nullptr;
}

// Runs `body` as every rank of a world, each in a thread of its own, and waits
// for all of them.
inline void run_ranks(std::int64_t world_size, const std::function<void(Communicator&)>& body) {
  const auto hosted = Rendezvous::host("127.0.0.1", 0, kMeetTimeout);
  ASSERT_TRUE(hosted.ok()) << hosted.error().message;
  std::vector<std::jthread> threads;
  for (std::int64_t rank = 0; rank < world_size; ++rank) {
    threads.emplace_back([rank, world_size, &hosted, &body] {
      const auto communicator = meet(WorkerId(rank), world_size, *hosted);
      if (communicator) body(*communicator);
    });
  }
}

}  // namespace bulkhead::testing
