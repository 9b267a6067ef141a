// The CUDA operators on CPU tensors, and operators that control the emulation. The Python side defines the schemas of
// the former from those of the real operators.
#include <ATen/Functions.h>
#include <cuda_runtime.h>
#include <torch/library.h>

#include "cuda/defocus_scan/tile.h"
#include "cuda/operators.h"

namespace {

constexpr int kThreads = 64;

// Reverses the numbers of the threads; the second warp reads values that the first one wrote.
void reverse(float* out, bool with_barrier) {
  auto* shared = reinterpret_cast<float*>(emulation::shared);
  shared[threadIdx.x] = threadIdx.x;
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

at::Tensor reverse_in_shared_memory(bool with_barrier) {
  const at::Tensor out = at::empty({kThreads}, at::kFloat);
  emulation::run(1, kThreads, kThreads * sizeof(float), [&] { reverse(out.data_ptr<float>(), with_barrier); });
  return out;
}

// Returns the places of the channels in a row of shared memory, and the length of a row.
std::tuple<at::Tensor, int64_t> row_layout() {
  const at::Tensor positions = at::empty({mmdefocus::cuda::kBlockChannels}, at::kLong);
  for (int c = 0; c < mmdefocus::cuda::kBlockChannels; ++c) positions[c] = mmdefocus::cuda::row_position(c);
  return {positions, mmdefocus::cuda::kRowFloats};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmdefocus_emulated, m) {
  m.def("seed(int value) -> ()", [](int64_t value) { emulation::seed(static_cast<unsigned>(value)); });
  m.def("set_multiprocessors(int count) -> ()",
        [](int64_t count) { emulation::multiprocessors = static_cast<int>(count); });
  m.def("row_layout() -> (Tensor, int)", &row_layout);
  m.def("reverse_in_shared_memory(bool with_barrier) -> Tensor", &reverse_in_shared_memory);
}

TORCH_LIBRARY_IMPL(mmdefocus_emulated, CPU, m) {
  m.impl("defocus_scan", &mmdefocus::cuda::defocus_scan);
  m.impl("defocus_scan_backward", &mmdefocus::cuda::defocus_scan_backward);
  m.impl("causal_conv1d", &mmdefocus::cuda::causal_conv1d);
  m.impl("causal_conv1d_backward", &mmdefocus::cuda::causal_conv1d_backward);
}
