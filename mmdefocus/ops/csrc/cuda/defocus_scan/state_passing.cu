// Carries the state from segment to segment of a sequence.
#include "cuda/common/activations.cuh"
#include "cuda/defocus_scan/arguments.h"
#include "cuda/common/launch.cuh"

namespace mmdefocus::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void carry_kernel(const Sizes sizes, const float* A, const float* first, bool reversed,
                             const SegmentSummaries summaries) {
  const int64_t slab = static_cast<int64_t>(sizes.channels) * sizes.state;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= sizes.batch * slab) return;
  const int64_t batch = index / slab, place = index % slab;
  float state = first == nullptr ? 0.0f : first[index];
  for (int i = 0; i < sizes.segments; ++i) {
    const int64_t segment = batch * sizes.segments + (reversed ? sizes.segments - 1 - i : i);
    float& at = summaries.states[segment * slab + place];
    const float entering = state;
    if (i < sizes.segments - 1) {
      const float deltas = summaries.deltas[segment * sizes.channels + place / sizes.state];
      state = exp_approx(deltas * A[place]) * entering + at;
    }
    at = entering;
  }
}

}  // namespace

cudaError_t launch_carry_segments(const Sizes& sizes, const float* A, const float* first, bool reversed,
                                  const SegmentSummaries& summaries, cudaStream_t stream) {
  const int64_t states = static_cast<int64_t>(sizes.batch) * sizes.channels * sizes.state;
  return launch(carry_kernel, (states + kThreads - 1) / kThreads, kThreads, 0, stream, sizes, A, first, reversed,
                summaries);
}

}  // namespace mmdefocus::cuda
