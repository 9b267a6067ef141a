// Channels that decay too fast for a common boundary of all tokens of a tile: their logits within a tile, pair by pair.
// Shapes: see tiles.h.
#pragma once

#include "cpu/bandpass/tiles.h"

namespace {

// True for infinity and NaN, too.
template <typename S>
inline bool is_direct(S rate) {
  return !(rate * S(kTile) <= S(kMaxExponent));
}

template <typename S>
inline bool has_direct_channels(const BandpassInputs<S>& in, int64_t h) {
  const S* rates = in.tables.rates + h * in.sizes.padded_channels;
  return std::any_of(rates, rates + in.sizes.channels, [](S rate) { return is_direct(rate); });
}

// exp(-lambda_c |n|) for n = -kTile ... kTile.
template <typename S>
struct FactorsByDistance {
  S factors[2 * kTile + 1];

  FactorsByDistance(const BandpassInputs<S>& in, int64_t h, int64_t c) {
    const int64_t D = in.sizes.padded_channels;
    const S* decays = in.tables.decays + h * (kTile + 1) * D + c;
    for (int n = 0; n <= kTile; ++n) factors[kTile + n] = factors[kTile - n] = decays[n * D];
  }

  // For the queries of a tile, seen from key s.
  const S* from(int s) const { return factors + kTile - s; }
};

// Calls use(channel, factors) for every direct channel.
template <typename S, typename Use>
inline void for_direct_channels(const BandpassInputs<S>& in, int64_t h, const Use& use) {
  for (int64_t c = 0; c < in.sizes.channels; ++c) {
    if (is_direct(in.tables.rates[h * in.sizes.padded_channels + c])) use(c, FactorsByDistance<S>(in, h, c));
  }
}

// Adds the part of direct channels to the logits of `keys` keys, given rotated rows (N, D).
template <typename S>
void add_direct_logits(const BandpassInputs<S>& in, int64_t h, const S* q, const S* k, int keys, Vec<S>* logits) {
  const int64_t D = in.sizes.padded_channels;
  for_direct_channels<S>(in, h, [&](int64_t c, const FactorsByDistance<S>& factors) {
    S query[kTile];
    for (int t = 0; t < kTile; ++t) query[t] = q[t * D + c] * in.scale;
    for (int s = 0; s < keys; ++s) {
      const S key = k[s * D + c], *factor = factors.from(s);
      S* row = reinterpret_cast<S*>(logits + s * kTileVectors<S>);
      for (int t = 0; t < kTile; ++t) row[t] += query[t] * key * factor[t];
    }
  });
}

// Adds the gradients of the same, given those of the logits: of rotated queries (before the scale) and keys (N, D), and
// the sum of distance * gradient * logit to `grad_rates` (D).
template <typename S>
void direct_gradients(const BandpassInputs<S>& in, const TileIndex& tile, const S* q, const S* k,
                      const Vec<S>* grad_logits, S* grad_q, S* grad_k, S* grad_rates) {
  const int64_t D = in.sizes.padded_channels;
  for_direct_channels<S>(in, tile.h, [&](int64_t c, const FactorsByDistance<S>& factors) {
    S rate = 0;
    for (int s = 0; s < tile.tokens; ++s) {
      const S key = k[s * D + c], *factor = factors.from(s);
      const S* row = numbers<S>(grad_logits + s * kTileVectors<S>);
      S grad_key = 0;
      for (int t = 0; t < tile.tokens; ++t) {
        const S gradient = row[t] * factor[t], part = gradient * q[t * D + c] * in.scale;
        grad_q[t * D + c] += gradient * key;
        grad_key += part;
        rate += part * key * static_cast<S>(std::abs(t - s));
      }
      grad_k[s * D + c] += grad_key;
    }
    grad_rates[c] += rate;
  });
}

}  // namespace
