// Sizes that the CUDA kernels of the De-focus scan are compiled for. Free of CUDA headers: builds without CUDA report
// these numbers too (see kernel_constants in registration.cpp).
#pragma once

namespace mmdefocus::cuda {

constexpr int kChunk = 16;          // steps between the states that the forward pass saves
constexpr int kMaxState = 32;       // N
constexpr int kBlockChannels = 64;  // channels per thread block; a norm group never crosses thread blocks

constexpr int kForwardSteps = 32;      // steps per iteration of a thread block, whole chunks
constexpr int kMinSegmentSteps = 256;  // of a segment: below it, the second pass outweighs the parallelism
static_assert(kForwardSteps % kChunk == 0);

}  // namespace mmdefocus::cuda
