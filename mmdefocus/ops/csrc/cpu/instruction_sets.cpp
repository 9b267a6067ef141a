#include "cpu/instruction_sets.h"

#include <ATen/Version.h>

namespace mmdefocus::cpu {

namespace {
// As torch does for its own kernels: what the processor has, or what ATEN_CPU_CAPABILITY says.
Kernels choose() {
#if defined(__x86_64__)
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return avx512_kernels();
  if (capability == "AVX2") return avx2_kernels();
#endif
  return baseline_kernels();
}
}  // namespace

const Kernels& kernels() {
  static const Kernels chosen = choose();
  return chosen;
}

}  // namespace mmdefocus::cpu
