// The kernels for x86 processors with AVX-512.
#if defined(__x86_64__)
#define MMDEFOCUS_VECTOR_BYTES 64
#include "cpu/common/untargeted_headers.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx2,fma")
#endif
#include "cpu/common/kernel_table.h"

namespace mmdefocus::cpu {
Kernels avx512_kernels() { return kernel_table("avx512"); }
}  // namespace mmdefocus::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
