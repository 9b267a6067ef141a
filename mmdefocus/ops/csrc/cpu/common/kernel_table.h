// The table of the kernels that the including file compiled.
#pragma once

#include "cpu/bandpass/attention_backward.h"
#include "cpu/bandpass/attention_forward.h"
#include "cpu/bandpass/retention_backward.h"
#include "cpu/causal_conv1d/kernels.h"
#include "cpu/common/instruction_sets.h"
#include "cpu/defocus_scan/backward_kernel.h"
#include "cpu/defocus_scan/forward_kernel.h"
#include "cpu/rms_norm/kernels.h"
#include "cpu/selective_scan/kernels.h"

namespace {

template <typename S>
BandpassKernels<S> bandpass_kernel_table() {
  return {bandpass_tables<S>,   attention_forward<S>,         attention_backward<S>,       attention_backward_keys<S>,
          retention_forward<S>, retention_local_gradients<S>, retention_pass_gradients<S>, retention_backward<S>};
}

Kernels kernel_table(const char* name) {
  return {name,
          {selective_forward<float>, selective_backward<float>},
          {selective_forward<double>, selective_backward<double>},
          {defocus_forward<float>, defocus_backward<float>},
          {defocus_forward<double>, defocus_backward<double>},
          bandpass_kernel_table<float>(),
          bandpass_kernel_table<double>(),
          {conv_forward<float>, conv_backward<float>},
          {conv_forward<double>, conv_backward<double>},
          {norm_forward<float>, norm_backward<float>},
          {norm_forward<double>, norm_backward<double>}};
}

}  // namespace
