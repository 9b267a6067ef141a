// Schemas of the operators, and the operators that report constants of the kernels.
//
// The public Python functions validate arguments and raise errors in the user's terms. The checks of the host functions
// keep memory safe when an operator is called directly.
// Shapes: B batch, E channels, L time, N state, K kernel width.
#include <Python.h>
#include <torch/library.h>

#include "common/segments.h"
#include "cpu/bandpass/arguments.h"
#include "cpu/common/blocks.h"
#include "cuda/causal_conv1d/limits.h"
#include "cuda/defocus_scan/limits.h"

namespace {

// The single source of the sizes that Python needs to allocate for the kernels and to choose a backend. The CUDA
// entries are present in every build, because fake kernels trace CUDA tensors without CUDA.
c10::Dict<std::string, int64_t> kernel_constants() {
  c10::Dict<std::string, int64_t> constants;
  constants.insert("cpu_scan_chunk", mmdefocus::cpu::kChunk);
  constants.insert("cpu_bandpass_tile", mmdefocus::cpu::kTile);
  constants.insert("cpu_bandpass_padding", mmdefocus::cpu::kPadding);
  constants.insert("cuda_scan_chunk", mmdefocus::cuda::kChunk);
  constants.insert("cuda_max_state", mmdefocus::cuda::kMaxState);
  constants.insert("cuda_max_group_size", mmdefocus::cuda::kBlockChannels);
  constants.insert("cuda_max_conv_width", mmdefocus::cuda::kMaxWidth);
  return constants;
}

int64_t gpu_segment_steps(int64_t length, int64_t thread_blocks, int64_t multiprocessors, int64_t granularity,
                          int64_t min_steps) {
  TORCH_CHECK(length > 0 && thread_blocks > 0 && multiprocessors > 0 && granularity > 0 && min_steps > 0,
              "mmdefocus::gpu_segment_steps: expected positive arguments, got ", length, ", ", thread_blocks, ", ",
              multiprocessors, ", ", granularity, " and ", min_steps);
  return mmdefocus::gpu_segment_steps(length, thread_blocks, multiprocessors, granularity, min_steps);
}

}  // namespace

TORCH_LIBRARY(mmdefocus, m) {
  // u, delta (B, E, L); A (E, N); B, C (B, N, L), shared by all channels; all of one type, float32 or float64.
  // Returns y (B, E, L), the state after the last step (B, E, N), and the states before every chunk, which the backward
  // pass needs: (B, ceil(L / cpu_scan_chunk), N, E).
  m.def("selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C) -> (Tensor, Tensor, Tensor)");
  m.def(
      "selective_scan_backward(Tensor grad_y, Tensor? grad_last_state, Tensor u, Tensor delta, Tensor A, Tensor B, "
      "Tensor C, Tensor chunk_states) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // x (B, E, L) of any floating type; weight (E, K), bias (E) float32, or float64 for x of float64.
  m.def("causal_conv1d(Tensor x, Tensor weight, Tensor? bias, bool silu) -> Tensor");
  m.def(
      "causal_conv1d_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor? bias, bool silu) -> "
      "(Tensor, Tensor, Tensor)");
  // u, dt, z (B, L, E) and B, C (B, L, N) of one floating type. All others float32, or float64 for float64: A (E, N),
  // D, dt_bias (E), freq (N), positions (L), initial_state (B, E, N).
  // Returns y (B, L, E), the state after the last token (B, E, N), and what the backward pass needs: the states before
  // every chunk, (B, ceil(L / cpu_scan_chunk), N, E) on CPU, (B, ceil(L / cuda_scan_chunk), E, N) with CUDA; with CUDA
  // also the normed y (B, L, E), float32 for float32 and float16 for half types, and the factors of the norm
  // (B, L, E / group_size), which are empty on CPU.
  m.def(
      "defocus_scan(Tensor u, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, Tensor z, Tensor dt_bias, "
      "Tensor? freq, Tensor? positions, Tensor? initial_state, float delta_scale, int group_size, float eps) -> "
      "(Tensor y, Tensor last_state, Tensor chunk_states, Tensor normed, Tensor inverse_rms)");
  // The gradient of an argument that is None is an empty tensor.
  m.def(
      "defocus_scan_backward(Tensor grad_y, Tensor? grad_last_state, Tensor u, Tensor dt, Tensor A, Tensor B, "
      "Tensor C, Tensor D, Tensor z, Tensor dt_bias, Tensor? freq, Tensor? positions, Tensor? initial_state, "
      "float delta_scale, int group_size, float eps, Tensor chunk_states, Tensor normed, Tensor inverse_rms) -> "
      "(Tensor grad_u, Tensor grad_dt, Tensor grad_A, Tensor grad_B, Tensor grad_C, Tensor grad_D, Tensor grad_z, "
      "Tensor grad_dt_bias, Tensor grad_freq, Tensor grad_initial_state)");
  // x (…, C) contiguous, of any floating type; weight (C) float32, or float64 for x of float64; dtype is that of y.
  // Returns y (…, C) and 1 / the root mean square of every row, which the backward pass needs.
  m.def("rms_norm(Tensor x, Tensor weight, float eps, ScalarType dtype) -> (Tensor y, Tensor inverse_rms)");
  m.def("rms_norm_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor inverse_rms) -> (Tensor, Tensor)");
  // value (B, V, H, C), locations (B, Q, H, L, P, 2) and weights (B, Q, H, L, P) of one type, float32 or float64;
  // shapes (L, 2) of int64. Returns (B, Q, H, C).
  m.def("deformable_sampling(Tensor value, Tensor shapes, Tensor locations, Tensor weights) -> Tensor");
  m.def(
      "deformable_sampling_backward(Tensor grad, Tensor value, Tensor shapes, Tensor locations, Tensor weights) -> "
      "(Tensor grad_value, Tensor grad_locations, Tensor grad_weights)");
  // q, k (B, H, L, d) and v (B, H, L, V) of one floating type; decay and freq (H, d / 2) float32, or float64 for
  // float64. Returns y (B, H, L, V), and the logarithm of the sum of exponentials of every query (B, H, L).
  m.def(
      "fused_bandpass_attention(Tensor q, Tensor k, Tensor v, Tensor? decay, Tensor? freq, bool causal, float scale) "
      "-> (Tensor y, Tensor lse)");
  // The gradient of an argument that is None is an empty tensor.
  m.def(
      "fused_bandpass_attention_backward(Tensor grad_y, Tensor q, Tensor k, Tensor v, Tensor? decay, Tensor? freq, "
      "Tensor y, Tensor lse, bool causal, float scale) -> "
      "(Tensor grad_q, Tensor grad_k, Tensor grad_v, Tensor grad_decay, Tensor grad_freq)");
  // Tensors as above. initial_state (B, H, V, d) float32, or float64 for float64, is decayed to the first token and
  // rotated to the position of the last one. Returns y and, if wanted, the state after the last token, and the states
  // before every tile of cpu_bandpass_tile tokens, which the backward pass needs: (B, H, ceil(L / cpu_bandpass_tile),
  // V, d) with V and d padded to multiples of cpu_bandpass_padding.
  m.def(
      "fused_retention(Tensor q, Tensor k, Tensor v, Tensor? decay, Tensor? freq, Tensor? initial_state, float scale, "
      "bool return_last_state, bool save_states) -> (Tensor y, Tensor last_state, Tensor states)");
  m.def(
      "fused_retention_backward(Tensor? grad_y, Tensor? grad_last_state, Tensor q, Tensor k, Tensor v, Tensor? decay, "
      "Tensor? freq, Tensor states, bool has_initial_state, float scale) -> (Tensor grad_q, Tensor grad_k, "
      "Tensor grad_v, Tensor grad_decay, Tensor grad_freq, Tensor grad_initial_state)");
  // Name of the kernels that run on this processor: baseline, avx2 or avx512.
  m.def("cpu_instruction_set() -> str");
  m.def("kernel_constants() -> Dict(str, int)", &kernel_constants);
  // Steps per segment of a sequence on a GPU; by default with the granularity and the minimum of the CUDA kernels.
  m.def(c10::str("gpu_segment_steps(int length, int thread_blocks, int multiprocessors, int granularity=",
                 mmdefocus::cuda::kForwardSteps, ", int min_steps=", mmdefocus::cuda::kMinSegmentSteps, ") -> int")
            .c_str(),
        &gpu_segment_steps);
}

// `import mmdefocus._ext` loads the library, which registers the operators; the module itself is empty.
PyMODINIT_FUNC PyInit__ext(void) {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_ext", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
