#include "cpu/instruction_sets.h"

namespace mmdefocus::cpu {

namespace {
Kernels best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return avx512_kernels();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2_kernels();
#endif
  return baseline_kernels();
}
}  // namespace

const Kernels& kernels() {
  static const Kernels chosen = best();
  return chosen;
}

}  // namespace mmdefocus::cpu
