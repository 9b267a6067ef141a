// From the gradients of scaled and rotated tokens to those of queries, keys, decay and frequencies.
// Shapes: see tiles.h.
#pragma once

#include "cpu/bandpass/queries.h"

namespace {

// Gradients of the logits of a token with itself do not depend on the filter. They are kept apart, so that their part
// of the gradients of decay and frequencies is exactly 0 instead of a difference of two equal numbers.
template <typename S>
inline void separate_self_gradients(const TileIndex& tile, Vec<S>* grad_logits, S* grad_self) {
  S* square = reinterpret_cast<S*>(grad_logits);
  for (int t = 0; t < tile.tokens; ++t) grad_self[t] = std::exchange(square[t * kTile + t], S(0));
}

// Adds the gradient of tokens to `total`, given that of tokens scaled by their distances, and adds the part of the
// decay, the sum over tokens of distance * token * gradient, to `grad_rates` (D).
template <typename S>
inline void unscale_gradients(const BandpassInputs<S>& in, const TileIndex& tile, Distances distances,
                              const Vec<S>* scaled, const Vec<S>* grad_scaled, Vec<S>* total, Vec<S>* grad_rates) {
  const int64_t stride = in.sizes.padded_channels / kLanes<S>;
  const Vec<S>* decays = vectors<S>(in.tables.decays) + tile.h * (kTile + 1) * stride;
  for (int n = 0; n < tile.tokens; ++n) {
    const int distance = distances.at(n);
    for (int64_t v = 0; v < stride; ++v) {
      const Vec<S> gradient = grad_scaled[n * stride + v];
      total[n * stride + v] += gradient * decays[distance * stride + v];
      grad_rates[v] += gradient * scaled[n * stride + v] * static_cast<S>(distance);
    }
  }
}

// Stores the gradients of queries or keys, given those of their rotated tokens, times `factor`, and the tokens that
// they are multiplied with. The sum over tokens of position times gradient of the phase, by channel and with the
// sign left out, goes to `grad_phases` (D).
template <typename S>
inline void store_gradients(const BandpassInputs<S>& in, const TileIndex& tile, const HeadsInput& partner,
                            const S* grad_self, S factor, const Vec<S>* rotated, Vec<S>* gradients, Vec<S>* partners,
                            Vec<S>* grad_phases, const HeadsOutput& out) {
  const int64_t D = in.sizes.padded_channels, stride = D / kLanes<S>;
  std::fill_n(grad_phases, stride, Vec<S>{});
  for (int n = 0; n < tile.tokens; ++n) {
    const S position = static_cast<S>(in.first_position + tile.start + n);
    for (int64_t v = 0; v < stride; ++v) {
      Vec<S>& gradient = gradients[n * stride + v];
      gradient *= factor;
      grad_phases[v] += gradient * swap_pairs<S>(rotated[n * stride + v], lanes<S>) * position;
    }
  }
  rotate_rows<S>(in, tile, S(-1), gradients);
  load_rows_of_tile<S>(partner, tile, in.sizes.channels, D, partners);
  for (int n = 0; n < tile.tokens; ++n) {
    const S own = grad_self[n] * in.scale;
    for (int64_t v = 0; v < stride; ++v) gradients[n * stride + v] += partners[n * stride + v] * own;
  }
  store_rows_of_tile<S>(gradients, tile, in.sizes.channels, stride, out);
}

// Adds the sum of the lanes of vector c to number c.
template <typename S>
inline void add_sums_of_lanes(const Vec<S>* sums, int64_t stride, Vec<S>* totals) {
  for (int64_t v = 0; v < stride; ++v) totals[v] += sums_of_lanes<S>(sums + v * kLanes<S>);
}

// The gradient of a tile of outputs.
template <typename S>
struct GradOutputs {
  Vec<S>*rows, *transposed;  // (N, W) and (W, N)

  static int64_t scratch_vectors(const BandpassSizes& sizes) { return 2 * sizes.padded_values * kTileVectors<S>; }

  GradOutputs(const BandpassSizes& sizes, Scratch<S>& scratch)
      : rows(scratch.take(sizes.padded_values * kTileVectors<S>)),
        transposed(scratch.take(sizes.padded_values * kTileVectors<S>)) {}

  void load(const HeadsInput& grad_y, const TileIndex& tile, const BandpassSizes& sizes) {
    const int64_t stride = sizes.padded_values / kLanes<S>;
    load_rows_of_tile<S>(grad_y, tile, sizes.values, sizes.padded_values, rows);
    transpose<S>(rows, kTileVectors<S>, static_cast<int>(stride), stride, kTileVectors<S>, transposed);
  }
};

// Gradients of one side of a tile of logits (keys, queries).
template <typename S>
struct LogitGradients {
  const BandpassInputs<S>& in;
  const Vec<S>* grad_logits;
  int keys;
  bool lower_half;

  // Adds the gradients of the values, given the weights in place of the gradients of the logits.
  void add_values(const TileIndex& tile, const GradOutputs<S>& grad_y, Vec<S>* grad_values) const {
    const int64_t stride = in.sizes.padded_values / kLanes<S>;
    add_keys_like(tile, grad_y.rows, stride, [=](int s, int v, Vec<S> sum) { grad_values[s * stride + v] += sum; });
  }

  // Adds the gradients of scaled keys.
  void add_keys(const Queries<S>& queries, Side side, Vec<S>* grad_keys) const {
    const int64_t stride = in.sizes.padded_channels / kLanes<S>;
    const Vec<S>* gain = queries.gain();
    add_keys_like(queries.tile(), queries.scaled(side), stride,
                  [=](int s, int v, Vec<S> sum) { grad_keys[s * stride + v] += sum * gain[v]; });
  }

  // Adds the gradients of scaled queries (D, N), and to `grad_rates` (D, one vector per channel) the part of the
  // distance between the boundaries.
  void add_queries(const Queries<S>& queries, Side side, const S* key_rows, S distance, Vec<S>* grad_queries,
                   Vec<S>* grad_rates) const {
    constexpr int V = kTileVectors<S>;
    const S* gain = numbers<S>(queries.gain());
    const Vec<S>* transposed = queries.transposed(side);
    multiply<S, Left::kColumns>(static_cast<int>((in.sizes.channels + 3) / 4 * 4), queries.vectors_of_queries(), keys,
                                key_rows, in.sizes.padded_channels, grad_logits, V, [=](int c, int v, Vec<S> sum) {
                                  const Vec<S> gradient = sum * gain[c];
                                  grad_queries[c * V + v] += gradient;
                                  grad_rates[c] += gradient * transposed[c * V + v] * distance;
                                });
  }

 private:
  template <typename Use>
  void add_keys_like(const TileIndex& tile, const Vec<S>* query_rows, int64_t stride, const Use& use) const {
    for_key_groups<S>(keys, lower_half, [&](int s, int count, int first) {
      multiply<S, Left::kRows>(count, static_cast<int>(stride), tile.tokens - first,
                               numbers<S>(grad_logits) + s * kTile + first, kTile, query_rows + first * stride, stride,
                               [&](int r, int v, Vec<S> sum) { use(s + r, v, sum); });
    });
  }
};

}  // namespace
