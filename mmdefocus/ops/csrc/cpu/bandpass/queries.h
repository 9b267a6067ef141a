// One tile of queries, and its logits with a tile of keys.
//
// Queries and keys are scaled by their distances to boundaries: keys to the end of their tile, queries to the start of
// theirs, and the gain exp(-lambda n) accounts for the n tokens between. No factor exceeds 1. With keys of the same
// tile, the end of the keys lies kTile tokens behind the start of the queries, and the gain is exp(lambda kTile) >= 1.
// Where it might overflow, it is 0, and the channel is computed directly (direct_channels.h). Keys after the queries,
// in attention that is not causal, are the mirror image.
//
// Shapes: see tiles.h. A tile of logits is (keys, queries): a lane is a query, so that sums over keys need no shuffles.
#pragma once

#include "cpu/bandpass/direct_channels.h"
#include "cpu/bandpass/tiles.h"

namespace {

enum Side { kBefore, kAfter };

// The places in the tile of the queries of a vector.
template <typename S>
inline Vec<S> query_numbers(int vector) {
  Vec<S> t;
  for (int i = 0; i < kLanes<S>; ++i) t[i] = static_cast<S>(vector * kLanes<S> + i);
  return t;
}

// Side of the squares along the diagonal: whole vectors of queries, and whole blocks of keys.
template <typename S>
constexpr int kDiagonalSquare = std::max(kLanes<S>, kBlockRows);

// Calls use(first key, number of keys, first query) for the keys of a tile in groups that need the queries from the
// first one on: all at once, or in squares along the diagonal of a lower half.
template <typename S, typename Use>
inline void for_key_groups(int keys, bool lower_half, const Use& use) {
  const int step = lower_half ? kDiagonalSquare<S> : keys;
  for (int s = 0; s < keys; s += step) use(s, std::min(step, keys - s), lower_half ? s : 0);
}

// Multiplies the values (rows, first columns) of keys with their weights (keys, queries), and calls first(row, vector,
// sum), and then more(row, vector, sum) for the second half of the keys of a lower half, which no query of the first
// half of the tile sees.
template <typename S, typename First, typename More>
inline void multiply_values(int rows, int vectors_of_queries, int keys, bool lower_half, const S* values,
                            int64_t value_stride, const Vec<S>* weights, const First& first, const More& more) {
  constexpr int V = kTileVectors<S>, kHalf = kTile / 2;
  const int early = lower_half ? std::min(keys, kHalf) : keys;
  multiply<S, Left::kColumns>(rows, vectors_of_queries, early, values, value_stride, weights, V, first);
  if (early == keys) return;
  multiply<S, Left::kColumns>(rows, vectors_of_queries - V / 2, keys - early, values + early * value_stride,
                              value_stride, weights + early * V + V / 2, V,
                              [&](int r, int v, Vec<S> sum) { more(r, v + V / 2, sum); });
}

template <typename S>
class Queries {
 public:
  static int64_t scratch_vectors(const BandpassSizes& sizes) {
    return (kSquares * kTile + 1) * (sizes.padded_channels / kLanes<S>)+(kTile + 1) * kTileVectors<S>;
  }

  Queries(const BandpassInputs<S>& in, Scratch<S>& scratch)
      : in_(in), stride_(in.sizes.padded_channels / kLanes<S>), gain_(scratch.take(stride_)),
        other_logits_(scratch.take(kTile * kTileVectors<S>)), self_logits_(scratch.take(kTileVectors<S>)) {
    Vec<S>** squares[kSquares] = {&rows_, &scaled_[0], &scaled_[1], &transposed_[0], &transposed_[1], &gained_, &keys_};
    for (Vec<S>** square : squares) *square = scratch.take(kTile * stride_);
  }

  void load(const TileIndex& tile) {
    tile_ = tile;
    load_rows_of_tile<S>(in_.q, tile, in_.sizes.channels, in_.sizes.padded_channels, rows_);
    load_rows_of_tile<S>(in_.k, tile, in_.sizes.channels, in_.sizes.padded_channels, keys_);
    products_of_rows<S>(rows_, keys_, stride_, self_logits_);
    rotate_rows<S>(in_, tile, S(1), rows_);
    if (has_direct_channels<S>(in_, tile.h)) rotate_rows<S>(in_, tile, S(1), keys_);
    for (int side = kBefore; side <= (in_.causal ? kBefore : kAfter); ++side) {
      scale_rows<S>(in_, tile, side == kBefore ? kFromFirst : kToEnd, in_.scale, rows_, scaled_[side]);
      transpose<S>(scaled_[side], vectors_of_queries(), static_cast<int>(stride_), stride_, kTileVectors<S>,
                   transposed_[side]);
    }
  }

  int vectors_of_queries() const { return (tile_.tokens + kLanes<S> - 1) / kLanes<S>; }
  const TileIndex& tile() const { return tile_; }
  const Vec<S>* scaled(Side side) const { return scaled_[side]; }          // (N, D)
  const Vec<S>* transposed(Side side) const { return transposed_[side]; }  // (D, N)
  const Vec<S>* gain() const { return gain_; }                             // (D), of the last call of select

  // Sets the gain for keys of tile `keys` on this side.
  void select(Side side, const TileIndex& keys) {
    const Vec<S>* rates = vectors<S>(in_.tables.rates + tile_.h * in_.sizes.padded_channels);
    const int64_t distance = (side == kBefore ? tile_.i - keys.i : keys.i - tile_.i) - 1;
    for (int64_t v = 0; v < stride_; ++v) {
      if (distance < 0) {
        const Vec<S> exponent = rates[v] * S(kTile);
        gain_[v] = exponent <= S(kMaxExponent) ? vector_exp<S>(exponent) : Vec<S>{};
      } else {
        gain_[v] = decay_factor<S>(rates[v], distance * kTile);
      }
    }
  }

  // Computes the logits with a tile of keys, packed in `slot`, into (kTile, kTileVectors), for all keys up to a
  // multiple of kBlockRows; `masked` stands for keys past the end and, if causal, for keys after the query. Returns the
  // number of keys.
  int logits(const PackedKeys<S>& packed, int64_t slot, const TileIndex& keys, S masked, Vec<S>* out) {
    const int rows = (keys.tokens + kBlockRows - 1) / kBlockRows * kBlockRows;
    const bool same = keys.i == tile_.i;
    if (keys.i <= tile_.i) products(kBefore, keys, packed.before(slot), rows, same && in_.causal, out);
    if (keys.i >= tile_.i && !in_.causal)
      products(kAfter, keys, packed.after(slot), rows, false, same ? other_logits_ : out);
    if (same) {
      if (!in_.causal) choose_side(rows, out);
      if (has_direct_channels<S>(in_, tile_.h)) {
        add_direct_logits<S>(in_, tile_.h, numbers<S>(rows_), numbers<S>(keys_), rows, out);
      }
      // A token's logit with itself depends neither on the decay nor on the rotation.
      const S* self = numbers<S>(self_logits_);
      S* square = reinterpret_cast<S*>(out);
      for (int t = 0; t < tile_.tokens; ++t) square[t * kTile + t] = self[t] * in_.scale;
      if (in_.causal) mask_later_keys(rows, masked, out);
    }
    for (int s = keys.tokens; s < rows; ++s) std::fill_n(out + s * kTileVectors<S>, kTileVectors<S>, splat<S>(masked));
    return rows;
  }

  // Masks keys after the query, in a tile of logits with the keys of the same tile.
  void mask_later_keys(int rows, S masked, Vec<S>* out) const {
    for (int v = 0; v < vectors_of_queries(); ++v) {
      const Vec<S> t = query_numbers<S>(v);
      // All queries of the vectors before this one come before its first key.
      for (int s = v * kLanes<S>; s < rows; ++s) {
        const int i = s * kTileVectors<S> + v;
        out[i] = t >= static_cast<S>(s) ? out[i] : splat<S>(masked);
      }
    }
  }

  // Rotated, without any scale; keys of the same tile, only if there are direct channels.
  const Vec<S>* rows() const { return rows_; }
  const Vec<S>* keys() const { return keys_; }

 private:
  static constexpr int kSquares = 7;

  void products(Side side, const TileIndex& keys, const S* key_rows, int rows, bool lower_half, Vec<S>* out) {
    constexpr int W = kLanes<S>, V = kTileVectors<S>;
    const int64_t D = in_.sizes.padded_channels;
    select(side, keys);
    const S* gain = numbers<S>(gain_);
    for (int64_t c = 0; c < in_.sizes.channels; ++c) {
      for (int v = 0; v < vectors_of_queries(); ++v) gained_[c * V + v] = transposed_[side][c * V + v] * gain[c];
    }
    for_key_groups<S>(rows, lower_half, [&](int s, int count, int first) {
      first /= W;
      multiply<S, Left::kRows>(count, vectors_of_queries() - first, static_cast<int>(in_.sizes.channels),
                               key_rows + s * D, D, gained_ + first, V,
                               [=](int r, int v, Vec<S> sum) { out[(s + r) * V + first + v] = sum; });
    });
  }

  // Takes the logits of keys after the query from the other side.
  void choose_side(int rows, Vec<S>* out) const {
    for (int v = 0; v < vectors_of_queries(); ++v) {
      const Vec<S> t = query_numbers<S>(v);
      for (int s = 0; s < rows; ++s) {
        const int i = s * kTileVectors<S> + v;
        out[i] = t >= static_cast<S>(s) ? out[i] : other_logits_[i];
      }
    }
  }

  const BandpassInputs<S>& in_;
  TileIndex tile_{in_.sizes, 0};
  int64_t stride_;
  Vec<S>*gain_, *other_logits_, *self_logits_;
  Vec<S>*rows_, *scaled_[2], *transposed_[2], *gained_, *keys_;
};

}  // namespace
