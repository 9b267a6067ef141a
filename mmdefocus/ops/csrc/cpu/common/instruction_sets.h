// The kernels, compiled once per instruction set, and the choice between them at run time.
#pragma once

#include "cpu/bandpass/arguments.h"
#include "cpu/causal_conv1d/arguments.h"
#include "cpu/defocus_scan/arguments.h"
#include "cpu/rms_norm/arguments.h"
#include "cpu/selective_scan/arguments.h"

namespace mmdefocus::cpu {

struct Kernels {
  const char* name;
  SelectiveKernels<float> selective_float;
  SelectiveKernels<double> selective_double;
  DefocusKernels<float> defocus_float;
  DefocusKernels<double> defocus_double;
  BandpassKernels<float> bandpass_float;
  BandpassKernels<double> bandpass_double;
  ConvKernels conv_float, conv_double;
  NormKernels<float> norm_float;
  NormKernels<double> norm_double;
};

Kernels baseline_kernels();
#if defined(__x86_64__)
Kernels avx2_kernels();
Kernels avx512_kernels();
#endif

// The kernels for this processor.
const Kernels& kernels();

}  // namespace mmdefocus::cpu
