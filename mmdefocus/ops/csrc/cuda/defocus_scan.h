// Arguments of the kernels of the De-focus scan, shared with the host functions that allocate and launch.
// Legend: B batch, L tokens, E channels, N state, M state padded to 16 or 32, S segments of a sequence that run in
// parallel. Parameters, states and what passes from kernel to kernel are contiguous float32.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/defocus_scan/limits.h"
#include "cuda/rows.h"

namespace mmdefocus::cuda {

constexpr int kBlockGroups = 8;        // groups of the norm in a thread block, at most
constexpr int kForwardSteps = 32;      // steps that a thread block takes at a time; whole chunks
constexpr int kRotationThreads = 256;  // of a thread block that rotates B and C

inline int padded_state(int state) { return state <= 16 ? 16 : kMaxState; }

struct Sizes {
  int batch, length, channels, state;
  int group_size;
  int block_channels;           // of a thread block; whole groups
  int channel_blocks;           // thread blocks side by side
  int segments, segment_steps;  // whole multiples of kForwardSteps, but for the last
  float delta_factor;           // 1 / delta_scale
  float eps;
  bool aligned;  // all rows of channels may be read and written in units of 16 bytes
};

template <typename T>
struct Projections {
  Sizes sizes;
  const T *B, *C;
  int64_t B_strides[3], C_strides[3];
  const float *positions, *freq;  // (L), (N); null where nothing rotates
};

template <typename T>
struct RotationGradients {
  const float* rotated;  // incoming, (B, L, channel blocks, 2M)
  T *B, *C;              // (B, L, N)
  float* freq;           // (rotation_blocks, N): partial sums
};

template <typename T>
struct ScanInputs {
  Sizes sizes;
  Rows<const T> u, dt, z;
  const float *A, *D, *dt_bias;  // (E, N), (E), (E)
  const float* rotated;          // (B, L, 2M): B and C after the rotation, zeros where N ends
};

// What a segment does to the state that enters it: multiplies it with exp(A · deltas) and adds `states`.
struct SegmentSummaries {
  float* states;  // (B, S, E, N)
  float* deltas;  // (B, S, E)
};

template <typename T>
struct ForwardOutputs {
  const float* start_states;  // (B, S, E, N), or null for zeros
  Rows<T> y;
  float* last_state;    // (B, E, N)
  float* chunk_states;  // (B, chunks, E, N): before the first step of every chunk
};

template <typename T>
struct BackwardInputs {
  ScanInputs<T> scan;
  Rows<const T> grad_y;
  const float* chunk_states;
};

template <typename T>
struct BackwardOutputs {
  const float* end_gradients;  // incoming, of the states after the segments, (B, S, E, N), or null for zeros
  Rows<T> u, dt, z;
  float* A;              // (B, S, E, N)
  float *D, *dt_bias;    // (B, S, E)
  float* rotated;        // (B, L, channel blocks, 2M)
  float* initial_state;  // (B, E, N), or null
};

// Thread blocks that rotate B and C: a thread for each pair of states.
inline int64_t rotation_blocks(const Sizes& sizes) {
  const int64_t pairs = static_cast<int64_t>(sizes.batch) * sizes.length * padded_state(sizes.state) / 2;
  return (pairs + kRotationThreads - 1) / kRotationThreads;
}

// Each of these returns what its launch returns.
template <typename T>
cudaError_t launch_rotate(const Projections<T>& projections, float* rotated, cudaStream_t stream);
template <typename T>
cudaError_t launch_rotate_backward(const Projections<T>& projections, const RotationGradients<T>& out,
                                   cudaStream_t stream);
template <typename T>
cudaError_t launch_forward(const ScanInputs<T>& inputs, const ForwardOutputs<T>& out, cudaStream_t stream);
template <typename T>
cudaError_t launch_backward(const BackwardInputs<T>& inputs, const BackwardOutputs<T>& out, cudaStream_t stream);
template <typename T>
cudaError_t launch_summarize_forward(const ScanInputs<T>& inputs, const SegmentSummaries& out, cudaStream_t stream);
template <typename T>
cudaError_t launch_summarize_backward(const BackwardInputs<T>& inputs, const SegmentSummaries& out,
                                      cudaStream_t stream);
// Replaces the states of the summaries by those that enter the segments. `first` (B, E, N), or null for zeros, enters
// the first segment, or the last one when `reversed`.
cudaError_t launch_carry_segments(const Sizes& sizes, const float* A, const float* first, bool reversed,
                                  const SegmentSummaries& summaries, cudaStream_t stream);

}  // namespace mmdefocus::cuda
