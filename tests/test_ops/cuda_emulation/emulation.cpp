#include "emulation.h"

#include <c10/util/Exception.h>
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

namespace emulation {

Index thread, block;
int multiprocessors = 1;

namespace {

constexpr size_t kStackBytes = 256 * 1024;
constexpr size_t kCanaryBytes = 4096;
constexpr int kPoison = 0xff;  // four of these are NaN

enum class Wait { kNone, kWarp, kBlock, kDone };

struct Fiber {
  std::unique_ptr<std::byte[]> stack{new std::byte[kStackBytes]};
  ucontext_t start;
  jmp_buf position;
  bool started;
  Wait wait;
  int exchanges;  // number of shuffles so far
};

struct Warp {
  std::array<int, kWarp> order;
  std::array<std::array<float, kWarp>, 2> exchanged;  // two slots, since a lane may be one exchange ahead of another
};

std::mutex one_kernel_at_a_time;
std::minstd_rand generator;
std::vector<Fiber> fibers(kMostThreads);
std::vector<Warp> warps(kMostThreads / kWarp);
ucontext_t scheduler_context;
jmp_buf scheduler;
Fiber* current;
const std::function<void()>* current_kernel;

void enter() {
  (*current_kernel)();
  current->wait = Wait::kDone;
  _longjmp(scheduler, 1);
}

// Runs a fiber until it waits.
void resume(unsigned index) {
  thread.x = index;
  current = &fibers[index];
  current->wait = Wait::kNone;
  if (_setjmp(scheduler) != 0) return;
  if (current->started) _longjmp(current->position, 1);
  current->started = true;
  getcontext(&current->start);
  current->start.uc_stack.ss_sp = current->stack.get();
  current->start.uc_stack.ss_size = kStackBytes;
  makecontext(&current->start, enter, 0);
  swapcontext(&scheduler_context, &current->start);
}

void wait(Wait what) {
  current->wait = what;
  if (_setjmp(current->position) == 0) _longjmp(scheduler, 1);
}

// Runs every lane of a warp to its next wait, which must be of the same kind for all of them.
Wait step(unsigned warp) {
  std::shuffle(warps[warp].order.begin(), warps[warp].order.end(), generator);
  for (const int lane : warps[warp].order) resume(warp * kWarp + lane);
  const Wait first = fibers[warp * kWarp].wait;
  for (int lane = 1; lane < kWarp; ++lane) {
    TORCH_CHECK(fibers[warp * kWarp + lane].wait == first, "lanes of a warp wait at different places");
  }
  return first;
}

void run_block(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) {
    fibers[i].started = false;
    fibers[i].exchanges = 0;
  }
  std::vector<unsigned> running(threads / kWarp), waiting;
  std::iota(running.begin(), running.end(), 0);
  for (const unsigned warp : running) std::iota(warps[warp].order.begin(), warps[warp].order.end(), 0);
  size_t done = 0;
  while (!running.empty()) {
    const size_t chosen = generator() % running.size();
    const bool runs_ahead = generator() % 2 == 0;
    Wait reached;
    do {
      reached = step(running[chosen]);
    } while (runs_ahead && reached == Wait::kWarp);
    if (reached != Wait::kWarp) {
      if (reached == Wait::kBlock) waiting.push_back(running[chosen]);
      if (reached == Wait::kDone) ++done;
      running.erase(running.begin() + chosen);
    }
    if (running.empty()) {
      TORCH_CHECK(waiting.empty() || done == 0, "some threads wait at a barrier that others never reach");
      running.swap(waiting);
    }
  }
}

}  // namespace

alignas(16) std::byte shared[kMostSharedBytes + kCanaryBytes];

void seed(unsigned value) { generator.seed(value); }

void wait_for_block() { wait(Wait::kBlock); }

void wait_for_warp() { wait(Wait::kWarp); }

float exchange(float value, int mask) {
  auto& slots = warps[thread.x / kWarp].exchanged[current->exchanges++ % 2];
  slots[thread.x % kWarp] = value;
  wait_for_warp();
  return slots[thread.x % kWarp ^ mask];
}

void run(unsigned blocks, unsigned threads, size_t shared_bytes, const std::function<void()>& kernel) {
  TORCH_CHECK(threads % kWarp == 0 && threads <= kMostThreads, "blocks of ", threads, " threads are not emulated");
  const std::lock_guard<std::mutex> lock(one_kernel_at_a_time);
  current_kernel = &kernel;
  std::vector<unsigned> order(blocks);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), generator);
  for (const unsigned index : order) {
    block.x = index;
    std::memset(shared, kPoison, sizeof(shared));
    run_block(threads);
    const auto* end = shared + shared_bytes;
    TORCH_CHECK(std::all_of(end, end + kCanaryBytes, [](std::byte b) { return b == std::byte{kPoison}; }),
                "a thread block wrote past its shared memory");
  }
}

}  // namespace emulation
