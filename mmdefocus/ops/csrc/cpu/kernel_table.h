// The table of the kernels that the including file compiled.
#pragma once

#include "cpu/causal_conv1d_kernel.h"
#include "cpu/instruction_sets.h"
#include "cpu/selective_scan_kernel.h"

namespace {

Kernels kernel_table(const char* name) {
  return {name,
          {forward<float>, backward<float>},
          {forward<double>, backward<double>},
          {conv_forward<float>, conv_backward<float>},
          {conv_forward<double>, conv_backward<double>}};
}

}  // namespace
