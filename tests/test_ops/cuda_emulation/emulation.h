// Emulation of CUDA kernels in plain C++: one fiber for each thread of a thread block, one thread block after the other.
//
// A fiber runs until it waits for its warp or its block. The scheduler chooses at random which warp continues, how far it
// runs ahead of the others, and the order of its lanes: with a missing barrier, some schedule reads a value that another
// thread has not written yet. Shared memory is NaN at the start of every thread block.
#pragma once

#include <cstddef>
#include <functional>

namespace emulation {

constexpr int kWarp = 32;
constexpr int kMostThreads = 1024;
constexpr size_t kMostSharedBytes = 99 * 1024;  // the smallest limit among the architectures that the kernels are built for

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
// The value of the lane whose index differs in the bits of the mask (__shfl_xor_sync).
float exchange(float value, int mask);

}  // namespace emulation
