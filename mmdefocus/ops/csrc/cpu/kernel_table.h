// The table of the kernels that the including file compiled.
#pragma once

#include "cpu/causal_conv1d_kernel.h"
#include "cpu/defocus_scan_backward_kernel.h"
#include "cpu/instruction_sets.h"
#include "cpu/selective_scan_kernel.h"

namespace {

Kernels kernel_table(const char* name) {
  return {name,
          {scan_forward<float>, scan_backward<float>},
          {scan_forward<double>, scan_backward<double>},
          {defocus_forward<float>, defocus_backward<float>},
          {defocus_forward<double>, defocus_backward<double>},
          {conv_forward<float>, conv_backward<float>},
          {conv_forward<double>, conv_backward<double>}};
}

}  // namespace
