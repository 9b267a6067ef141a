// For any processor: the compiler splits the vectors as its target needs.
#define MMDEFOCUS_VECTOR_BYTES 16
#include "cpu/std_headers.h"
#include "cpu/kernel_table.h"

namespace mmdefocus::cpu {
Kernels baseline_kernels() { return kernel_table("baseline"); }
}  // namespace mmdefocus::cpu
