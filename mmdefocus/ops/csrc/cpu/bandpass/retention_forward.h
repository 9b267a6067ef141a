// Forward pass of retention for the instruction set of the including file: local states of all tiles, states passed
// from tile to tile, and outputs of all tiles.
//
// The state before a tile is the sum over all earlier tokens of value * key, (W, D), with the keys scaled by their
// distance to the first token of the tile; the last state counts from the last token of the sequence.
// Shapes: see tiles.h.
#pragma once

#include "cpu/bandpass/queries.h"

namespace {

// Distances of the keys of a tile to the boundary of the state after it.
inline Distances to_state(const BandpassSizes& sizes, const TileIndex& tile) {
  return tile.i + 1 < sizes.tiles ? kToEnd : Distances{false, tile.tokens - 1};
}

// Tokens from the first token of a tile to the boundary of the state after it.
inline int state_distance(const BandpassSizes& sizes, int64_t i) {
  return i + 1 < sizes.tiles ? kTile : static_cast<int>(sizes.length - 1 - i * kTile);
}

// Returns the keys of a tile scaled for the state after it; `rows` is for the last tile.
template <typename S>
inline const Vec<S>* keys_for_state(const BandpassInputs<S>& in, const TileIndex& tile, const PackedKeys<S>& packed,
                                    Vec<S>* rows) {
  const BandpassSizes& sizes = in.sizes;
  if (tile.i + 1 < sizes.tiles) return vectors<S>(packed.before(0));
  load_rows_of_tile<S>(in.k, tile, sizes.channels, sizes.padded_channels, rows);
  rotate_rows<S>(in, tile, S(1), rows);
  scale_rows<S>(in, tile, to_state(sizes, tile), S(1), rows, rows);
  return rows;
}

// Goes through the tiles of a head with a state of some of the rows of its values.
template <typename S>
class RetentionForward {
 public:
  RetentionForward(const BandpassInputs<S>& in, const RetentionOutputs<S>& out)
      : in_(in), out_(out), sizes_(in.sizes), D_(sizes_.padded_channels), W_(sizes_.padded_values),
        stride_(D_ / kLanes<S>),
        scratch_(PackedKeys<S>::scratch_vectors(sizes_, 1) + Queries<S>::scratch_vectors(sizes_) +
                 (kTile + 2 * W_) * V + (kTile + W_) * stride_),
        packed_(in, 1, scratch_), queries_(in, scratch_), logits_(scratch_.take(kTile * V)),
        outputs_(scratch_.take(W_ * V)), output_rows_(scratch_.take(W_ * V)), key_rows_(scratch_.take(kTile * stride_)),
        state_(scratch_.take(W_ * stride_)) {}

  void run(int64_t head, int64_t first_row) {
    first_ = first_row;
    count_ = static_cast<int>(std::min(out_.block_rows, W_ - first_row));
    present_ = std::clamp<int64_t>(sizes_.values - first_row, 0, count_);
    const int64_t outer = (head * sizes_.values + first_) * sizes_.channels, bytes = sizes_.channels * sizeof(S);
    std::fill_n(state_, count_ * stride_, Vec<S>{});
    for (int64_t w = 0; out_.initial_state && w < present_; ++w) {
      std::memcpy(state_ + w * stride_, out_.initial_state + outer + w * sizes_.channels, bytes);
    }
    for (int64_t i = 0; i < sizes_.tiles; ++i) {
      const TileIndex tile(sizes_, head, i);
      packed_.pack(tile, 0);
      queries_.load(tile);
      compute_outputs(tile);
      if (out_.states)
        std::copy_n(state_, count_ * stride_, vectors(out_.states + ((head * sizes_.tiles + i) * W_ + first_) * D_));
      if (i + 1 < sizes_.tiles || out_.last_state) pass_state(tile);
    }
    for (int64_t w = 0; out_.last_state && w < present_; ++w) {
      std::memcpy(out_.last_state + outer + w * sizes_.channels, state_ + w * stride_, bytes);
    }
  }

 private:
  static constexpr int V = kTileVectors<S>;

  void compute_outputs(const TileIndex& tile) {
    const int count = queries_.logits(packed_, 0, tile, S(0), logits_), used = queries_.vectors_of_queries();
    Vec<S>* outputs = outputs_;
    const auto add = [=](int w, int v, Vec<S> sum) { outputs[w * V + v] += sum; };
    multiply_values<S>(
        count_, used, count, true, packed_.values(0) + first_, W_, logits_,
        [=](int w, int v, Vec<S> sum) { outputs[w * V + v] = sum; }, add);
    if (tile.i > 0 || out_.initial_state) {
      multiply<S, Left::kRows>(count_, used, static_cast<int>(sizes_.channels), numbers<S>(state_), D_,
                               queries_.transposed(kBefore), V, add);
    }
    const int64_t output_stride = count_ / kLanes<S>;
    transpose<S>(outputs_, static_cast<int>(output_stride), used, V, output_stride, output_rows_);
    HeadsOutput y = out_.y;
    y.data += first_ * y.channel_stride * element_bytes(y.type);
    store_rows_of_tile<S>(output_rows_, tile, present_, output_stride, y);
  }

  // Replaces the state before a tile by that after it.
  void pass_state(const TileIndex& tile) {
    const Vec<S>* decay =
        vectors<S>(in_.tables.decays) + (tile.h * (kTile + 1) + state_distance(sizes_, tile.i)) * stride_;
    Vec<S>* state = state_;
    const int64_t stride = stride_;
    multiply<S, Left::kColumns>(
        count_, static_cast<int>(stride), tile.tokens, packed_.values(0) + first_, W_,
        keys_for_state<S>(in_, tile, packed_, key_rows_), stride,
        [=](int w, int v, Vec<S> sum) { state[w * stride + v] = state[w * stride + v] * decay[v] + sum; });
  }

  const BandpassInputs<S>& in_;
  const RetentionOutputs<S>& out_;
  const BandpassSizes& sizes_;
  int64_t D_, W_, stride_;
  Scratch<S> scratch_;
  PackedKeys<S> packed_;
  Queries<S> queries_;
  Vec<S>*logits_, *outputs_, *output_rows_, *key_rows_, *state_;
  int64_t first_ = 0, present_ = 0;  // first row of the values, and rows that are no padding
  int count_ = 0;
};

// Work on the items begin ... end; item i is a block of rows of values of a head.
template <typename S>
void retention_forward(const BandpassInputs<S>& in, const RetentionOutputs<S>& out, int64_t begin, int64_t end) {
  RetentionForward<S> forward(in, out);
  const int64_t blocks = (in.sizes.padded_values + out.block_rows - 1) / out.block_rows;
  for (int64_t item = begin; item < end; ++item) forward.run(item / blocks, item % blocks * out.block_rows);
}

}  // namespace
