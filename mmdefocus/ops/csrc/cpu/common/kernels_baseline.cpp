// The kernels for every processor: the compiler lowers the vectors to what its default target has.
#define MMDEFOCUS_VECTOR_BYTES 16
#include "cpu/common/untargeted_headers.h"
#include "cpu/common/kernel_table.h"

namespace mmdefocus::cpu {
Kernels baseline_kernels() { return kernel_table("baseline"); }
}  // namespace mmdefocus::cpu
