// State passing: initial states of all segments from their local final states.
//
// A thread takes one state of one channel through the few segments of its sequence, one after the other. This is the
// only serial part of a sequence that is cut, and it is tiny: M steps instead of L.
// Shapes: B batch, E channels, N state, M segments per sequence.
#include "cuda/common/activations.cuh"
#include "cuda/common/launch.cuh"
#include "cuda/defocus_scan/arguments.h"

namespace mmdefocus::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void state_passing_kernel(const Sizes sizes, const float* A, const float* boundary_state, bool reversed,
                                     const LocalStates local) {
  const int64_t slab = static_cast<int64_t>(sizes.channels) * sizes.state;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= sizes.batch * slab) return;
  const int64_t batch = index / slab, offset = index % slab;  // offset in (E, N): neighbouring threads, so coalesced
  float state = boundary_state == nullptr ? 0.0f : boundary_state[index];
  for (int i = 0; i < sizes.segments; ++i) {
    const int64_t segment = batch * sizes.segments + (reversed ? sizes.segments - 1 - i : i);
    float& slot = local.states[segment * slab + offset];
    const float initial_state = state;
    // The last segment in this direction has no successor, and the local kernels do not write it.
    if (i < sizes.segments - 1) {
      const float total_delta = local.total_delta[segment * sizes.channels + offset / sizes.state];
      state = exp_approx(total_delta * A[offset]) * initial_state + slot;
    }
    slot = initial_state;
  }
}

}  // namespace

cudaError_t launch_state_passing(const Sizes& sizes, const float* A, const float* boundary_state, bool reversed,
                                 const LocalStates& local, cudaStream_t stream) {
  const int64_t states = static_cast<int64_t>(sizes.batch) * sizes.channels * sizes.state;
  return launch(state_passing_kernel, ceil_div(states, kThreads), kThreads, 0, stream, sizes, A, boundary_state,
                reversed, local);
}

}  // namespace mmdefocus::cuda
