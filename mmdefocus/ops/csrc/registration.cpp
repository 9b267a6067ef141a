// Schemas of the operators. The public Python functions validate their arguments and say what is wrong in the user's
// terms; the checks of the host functions keep memory safe for whoever calls the operators directly.
#include <Python.h>
#include <torch/library.h>

#include "cpu/chunks.h"
#include "cuda/causal_conv1d/limits.h"
#include "cuda/defocus_scan/limits.h"

namespace {

// The single source of the sizes that Python needs to allocate for the kernels and to choose a backend. The CUDA
// entries are present in every build, because fake kernels trace CUDA tensors without CUDA.
c10::Dict<std::string, int64_t> kernel_constants() {
  c10::Dict<std::string, int64_t> constants;
  constants.insert("cpu_scan_chunk", mmdefocus::cpu::kChunk);
  constants.insert("cuda_scan_chunk", mmdefocus::cuda::kChunk);
  constants.insert("cuda_max_state", mmdefocus::cuda::kMaxState);
  constants.insert("cuda_max_group_size", mmdefocus::cuda::kBlockChannels);
  constants.insert("cuda_max_conv_width", mmdefocus::cuda::kMaxWidth);
  return constants;
}

}  // namespace

TORCH_LIBRARY(mmdefocus, m) {
  // u, delta (B, E, L); A (E, N); B, C (B, G, N, L) or, constant, (E, N).
  // Returns y (B, E, L), the state after the last step (B, E, N), and the states that the backward pass starts from.
  m.def("selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C) -> (Tensor, Tensor, Tensor)");
  m.def(
      "selective_scan_backward(Tensor grad_y, Tensor? grad_last_state, Tensor u, Tensor delta, Tensor A, Tensor B, "
      "Tensor C, Tensor chunk_states) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  // x (B, E, L), weight (E, K), bias (E).
  m.def("causal_conv1d(Tensor x, Tensor weight, Tensor? bias, bool silu) -> Tensor");
  m.def(
      "causal_conv1d_backward(Tensor grad_y, Tensor x, Tensor weight, Tensor? bias, bool silu) -> "
      "(Tensor, Tensor, Tensor)");
  // u, dt, z (B, L, E) and B, C (B, L, N) of one floating type; the others float (double for double): A (E, N),
  // D, dt_bias (E), freq (N), positions (L), initial_state (B, E, N).
  // Returns y (B, L, E), the state after the last token (B, E, N), and the states that the backward pass starts from.
  m.def(
      "defocus_scan(Tensor u, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, Tensor z, Tensor dt_bias, "
      "Tensor? freq, Tensor? positions, Tensor? initial_state, float delta_scale, int group_size, float eps) -> "
      "(Tensor y, Tensor last_state, Tensor chunk_states)");
  // The gradient of an argument that is None is an empty tensor.
  m.def(
      "defocus_scan_backward(Tensor grad_y, Tensor? grad_last_state, Tensor u, Tensor dt, Tensor A, Tensor B, "
      "Tensor C, Tensor D, Tensor z, Tensor dt_bias, Tensor? freq, Tensor? positions, Tensor? initial_state, "
      "float delta_scale, int group_size, float eps, Tensor chunk_states) -> "
      "(Tensor grad_u, Tensor grad_dt, Tensor grad_A, Tensor grad_B, Tensor grad_C, Tensor grad_D, Tensor grad_z, "
      "Tensor grad_dt_bias, Tensor grad_freq, Tensor grad_initial_state)");
  m.def("cpu_instruction_set() -> str");
  m.def("kernel_constants() -> Dict(str, int)", &kernel_constants);
}

// `import mmdefocus._ext` loads the library, which registers the operators; the module itself is empty.
PyMODINIT_FUNC PyInit__ext(void) {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_ext", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&definition);
}
