// Segments of a sequence that are scanned in parallel, and the rules that decide how many there are.
//
// Cutting a sequence is not free: the state before a segment is known only after a pass over all earlier segments, so
// every cut sequence is scanned twice, once for the local states and once for the results. Both rules therefore cut
// only where the blocks of channels alone would leave processors idle.
#pragma once

#include <algorithm>
#include <cstdint>

namespace mmdefocus {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t round_up(int64_t a, int64_t multiple) { return ceil_div(a, multiple) * multiple; }

// Steps of each segment (a multiple of `granularity`) that divide a sequence into at most `segments` parts.
constexpr int64_t segment_steps(int64_t length, int64_t segments, int64_t granularity) {
  return round_up(ceil_div(length, segments), granularity);
}

// CPU: at most one segment per thread. Two segments would take as long as one, since there are two passes, so a
// sequence is cut into at least three or not at all.
inline int64_t cpu_segment_steps(int64_t length, int64_t blocks, int64_t threads, int64_t granularity,
                                 int64_t min_steps) {
  constexpr int64_t kMinSegments = 3;
  const int64_t segments = std::min(threads / std::max<int64_t>(1, blocks), length / min_steps);
  return segments < kMinSegments ? length : segment_steps(length, segments, granularity);
}

// GPU: where there are fewer thread blocks than multiprocessors, so many segments that each multiprocessor gets about
// four thread blocks, enough to hide the latency of one with the work of the others.
inline int64_t gpu_segment_steps(int64_t length, int64_t thread_blocks, int64_t multiprocessors, int64_t granularity,
                                 int64_t min_steps) {
  constexpr int64_t kBlocksPerMultiprocessor = 4;
  const int64_t whole = round_up(length, granularity);
  if (thread_blocks >= multiprocessors) return whole;
  const int64_t segments = ceil_div(kBlocksPerMultiprocessor * multiprocessors, std::max<int64_t>(1, thread_blocks));
  return std::min(whole, std::max(segment_steps(length, segments, granularity), min_steps));
}

}  // namespace mmdefocus
