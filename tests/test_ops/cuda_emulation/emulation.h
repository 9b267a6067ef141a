// Runs a kernel as plain C++: one fiber for each thread of a thread block, one thread block after the other.
//
// A fiber runs until it waits for its warp or for its block, so fibers meet nowhere else. Which warp goes on, how far
// it runs ahead of the others, and the order of its lanes are drawn at random: with a barrier left out, some schedule
// reads what another thread has not written yet. Shared memory begins as NaN in every thread block.
#pragma once

#include <cstddef>
#include <functional>

namespace emulation {

constexpr int kWarp = 32;
constexpr int kMostThreads = 1024;
constexpr size_t kMostSharedBytes = 99 * 1024;  // the least among the architectures that the kernels are built for

struct Index {
  unsigned x;
};
extern Index thread, block;
extern int multiprocessors;
extern std::byte shared[];

void seed(unsigned value);
void run(unsigned blocks, unsigned threads, size_t shared_bytes, const std::function<void()>& kernel);
void wait_for_block();
void wait_for_warp();
// The value of the lane whose number differs in the bits of the mask.
float exchange(float value, int mask);

}  // namespace emulation
