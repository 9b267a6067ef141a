// The kernels for x86 processors with AVX2 and FMA.
#if defined(__x86_64__)
#define MMDEFOCUS_VECTOR_BYTES 32
#include "cpu/common/untargeted_headers.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#include "cpu/common/kernel_table.h"

namespace mmdefocus::cpu {
Kernels avx2_kernels() { return kernel_table("avx2"); }
}  // namespace mmdefocus::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
