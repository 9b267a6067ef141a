// The table of the kernels that the including file compiled.
#pragma once

#include "cpu/causal_conv1d/kernels.h"
#include "cpu/common/instruction_sets.h"
#include "cpu/defocus_scan/backward_kernel.h"
#include "cpu/defocus_scan/forward_kernel.h"
#include "cpu/rms_norm/kernels.h"
#include "cpu/selective_scan/kernels.h"

namespace {

Kernels kernel_table(const char* name) {
  return {name,
          {selective_forward<float>, selective_backward<float>},
          {selective_forward<double>, selective_backward<double>},
          {defocus_forward<float>, defocus_backward<float>},
          {defocus_forward<double>, defocus_backward<double>},
          {conv_forward<float>, conv_backward<float>},
          {conv_forward<double>, conv_backward<double>},
          {norm_forward<float>, norm_backward<float>},
          {norm_forward<double>, norm_backward<double>}};
}

}  // namespace
