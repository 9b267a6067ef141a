// The CUDA operators on CPU tensors, whose schemas the Python side takes from the real ones, and what tests need beside
// them.
#include <ATen/Functions.h>
#include <cuda_runtime.h>
#include <torch/library.h>

#include "cuda/operators.h"
#include "cuda/scan_arguments.h"

namespace {

constexpr int kThreads = 64;

// With a warp that must know what another has written.
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

}  // namespace

TORCH_LIBRARY_FRAGMENT(mmdefocus_emulated, m) {
  m.def("seed(int value) -> ()", [](int64_t value) { emulation::seed(static_cast<unsigned>(value)); });
  m.def("set_multiprocessors(int count) -> ()",
        [](int64_t count) { emulation::multiprocessors = static_cast<int>(count); });
  m.def("segment_steps(int length, int thread_blocks, int multiprocessors) -> int",
        [](int64_t length, int64_t blocks, int64_t processors) {
          return mmdefocus::cuda::choose_segment_steps(length, blocks, static_cast<int>(processors));
        });
  m.def("reverse_in_shared_memory(bool with_barrier) -> Tensor", &reverse_in_shared_memory);
}

TORCH_LIBRARY_IMPL(mmdefocus_emulated, CPU, m) {
  m.impl("defocus_scan", &mmdefocus::cuda::defocus_scan);
  m.impl("defocus_scan_backward", &mmdefocus::cuda::defocus_scan_backward);
  m.impl("causal_conv1d", &mmdefocus::cuda::causal_conv1d);
  m.impl("causal_conv1d_backward", &mmdefocus::cuda::causal_conv1d_backward);
}
