// Sizes that the CUDA kernels of the causal convolution are compiled for. Free of CUDA headers: builds without CUDA
// report these numbers too (see kernel_constants in registration.cpp).
#pragma once

namespace mmdefocus::cuda {

constexpr int kMaxWidth = 4;  // K; the taps of a thread are held in registers

}  // namespace mmdefocus::cuda
