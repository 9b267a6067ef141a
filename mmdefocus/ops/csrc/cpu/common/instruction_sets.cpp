// Choice of the kernels for this processor, and the operator that reports it.
#include "cpu/common/instruction_sets.h"

#include <ATen/Version.h>
#include <torch/library.h>

namespace mmdefocus::cpu {

namespace {

// Follows torch, so that the environment variable ATEN_CPU_CAPABILITY selects our kernels together with torch's own.
Kernels choose() {
#if defined(__x86_64__)
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return avx512_kernels();
  if (capability == "AVX2") return avx2_kernels();
#endif
  return baseline_kernels();
}

std::string cpu_instruction_set() { return kernels().name; }

}  // namespace

const Kernels& kernels() {
  static const Kernels chosen = choose();
  return chosen;
}

TORCH_LIBRARY_IMPL(mmdefocus, CompositeImplicitAutograd, m) { m.impl("cpu_instruction_set", &cpu_instruction_set); }

}  // namespace mmdefocus::cpu
