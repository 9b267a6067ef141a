// Tiles of all vectors of a block of channels, and their transfer from and to memory.
//
// In channels-last tensors, the steps of a sequence lie in different pages. Loading vector after vector would visit
// every page once per vector, with a TLB miss each time; a block is therefore loaded step by step, all vectors at once.
// Shapes: a tile of a block is (vectors, stride) vectors, of which the first `length` of each row are in use.
#pragma once

#include "cpu/common/blocks.h"
#include "cpu/common/tile.h"

namespace {

// One block of channels, as vectors of which all but the last are full.
template <typename S>
struct Block {
  int64_t b, index_in_sequence, first_channel, end_channel;
  int vectors;

  Block(const ChannelBlocks& blocks, int64_t index)
      : b(index / blocks.per_sequence), index_in_sequence(index % blocks.per_sequence),
        first_channel(index_in_sequence * blocks.block_channels),
        end_channel(std::min(first_channel + blocks.block_channels, blocks.channels)),
        vectors(static_cast<int>((end_channel - first_channel + kLanes<S> - 1) / kLanes<S>)) {}

  int64_t channel(int v) const { return first_channel + static_cast<int64_t>(v) * kLanes<S>; }
  int lanes(int v) const { return static_cast<int>(std::min<int64_t>(kLanes<S>, end_channel - channel(v))); }
};

template <typename S>
inline int vectors_per_block(const ChannelBlocks& blocks) {
  return static_cast<int>((blocks.block_channels + kLanes<S> - 1) / kLanes<S>);
}

template <typename S>
inline bool is_channels_last(int64_t channel_stride, const Block<S>& block) {
  return channel_stride == 1 && block.lanes(block.vectors - 1) == kLanes<S>;
}

// Loads the steps start .. start + length of a block; `ahead` as in load_tile_as.
template <typename S>
inline void load_block(const InputView& x, const Block<S>& block, int64_t start, int length, int stride, int ahead,
                       Vec<S>* tile) {
  if (!is_channels_last<S>(x.channel_stride, block)) {
    for (int v = 0; v < block.vectors; ++v) {
      load_tile<S>(x, block.b, block.channel(v), start, block.lanes(v), length, tile + v * stride, ahead);
    }
    return;
  }
  with_storage<S>(x.type, [&](auto storage) {
    using Type = decltype(storage);
    const auto* source = reinterpret_cast<const typename Type::Element*>(x.at(block.b, block.first_channel, start));
    for (int t = 0; t < length; ++t, source += x.time_stride) {
      for (int v = 0; v < block.vectors; ++v) {
        typename Type::Stored stored;
        std::memcpy(&stored, source + v * kLanes<S>, sizeof(stored));
        tile[v * stride + t] = Type::widen(stored);
        if (ahead) __builtin_prefetch(source + v * kLanes<S> + ahead * x.time_stride, 0, 2);
      }
    }
  });
}

// The inverse of load_block.
template <typename S>
inline void store_block(const Vec<S>* tile, const Block<S>& block, int64_t start, int length, int stride,
                        const OutputView& x) {
  if (!is_channels_last<S>(x.channel_stride, block)) {
    for (int v = 0; v < block.vectors; ++v) {
      store_tile<S>(tile + v * stride, block.b, block.channel(v), start, block.lanes(v), length, x);
    }
    return;
  }
  with_storage<S>(x.type, [&](auto storage) {
    using Type = decltype(storage);
    auto* target = reinterpret_cast<typename Type::Element*>(x.at(block.b, block.first_channel, start));
    for (int t = 0; t < length; ++t, target += x.time_stride) {
      for (int v = 0; v < block.vectors; ++v) {
        const typename Type::Stored stored = Type::narrow(tile[v * stride + t]);
        std::memcpy(target + v * kLanes<S>, &stored, sizeof(stored));
      }
    }
  });
}

}  // namespace
