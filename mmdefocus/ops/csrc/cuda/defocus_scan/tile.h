// Layout of tiles (steps, channels) in shared memory. Free of CUDA headers, so that a test can count bank conflicts.
#pragma once

#include "cuda/defocus_scan/limits.h"

namespace mmdefocus::cuda {

// Four floats separate the halves of a row, and rows are 72 floats apart. By rows, eight lanes load 16 bytes each, 32
// bytes apart: the gap moves lanes 4 to 7 to the banks between those of lanes 0 to 3. The sums for the norm let a warp
// read eight neighbouring channels of four neighbouring steps, which begin eight banks apart.
constexpr int kHalfRow = kBlockChannels / 2, kRowGap = 4;
constexpr int kRowFloats = kBlockChannels + 2 * kRowGap;

template <int kSteps>
using Tile = float[kSteps][kRowFloats];

// Returns the place of a channel in a row.
constexpr int row_position(int channel) { return channel + channel / kHalfRow * kRowGap; }

}  // namespace mmdefocus::cuda
