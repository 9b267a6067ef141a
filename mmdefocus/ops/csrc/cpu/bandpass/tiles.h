// Tables of the parameters, and tiles of rotated and scaled tokens.
// Shapes: see arguments.h; N = kTile tokens. A tile of tokens is (N, D) or transposed (D, N).
#pragma once

#include "cpu/bandpass/arguments.h"
#include "cpu/common/matrix.h"
#include "cpu/common/tile.h"

namespace {

// Vectors of a row of a tile of logits: one lane per query.
template <typename S>
constexpr int kTileVectors = kTile / kLanes<S>;

// The same memory as vectors, or as numbers.
template <typename S>
inline Vec<S>* vectors(S* numbers) {
  return reinterpret_cast<Vec<S>*>(numbers);
}
template <typename S>
inline const Vec<S>* vectors(const S* numbers) {
  return reinterpret_cast<const Vec<S>*>(numbers);
}
template <typename S>
inline const S* numbers(const Vec<S>* vectors) {
  return reinterpret_cast<const S*>(vectors);
}

// Tile i of head h of sequence b.
struct TileIndex {
  int64_t b, h, i, head, start;  // head counts over sequences, too
  int tokens;                    // of the sequence that are in the tile

  TileIndex(const BandpassSizes& sizes, int64_t head_, int64_t tile)
      : b(head_ / sizes.heads), h(head_ % sizes.heads), i(tile), head(head_), start(tile * kTile),
        tokens(static_cast<int>(std::min<int64_t>(kTile, sizes.length - start))) {}
  TileIndex(const BandpassSizes& sizes, int64_t index) : TileIndex(sizes, index / sizes.tiles, index % sizes.tiles) {}

  // First row of the tile in a (B, H, G kTile, ...) tensor.
  int64_t row(const BandpassSizes& sizes) const { return (head * sizes.tiles + i) * kTile; }
};

// cos(2 pi x) for |x| <= 0.5, in turns. Quarter turns select one of two Taylor series on an eighth of a turn.
template <typename S>
inline Vec<S> cosine_of_turns(Vec<S> x) {
  constexpr int kTerms = std::is_same_v<S, float> ? 6 : 10;
  constexpr S kRounder = Simd<S>::kRounder;
  const Vec<S> quarters = (x * S(4) + kRounder) - kRounder;
  const Vec<S> r = (x - quarters * S(0.25)) * S(6.283185307179586477), square = r * r;
  Vec<S> cosine = splat<S>(S(1)), sine = splat<S>(S(1));
#pragma GCC unroll 16
  for (int k = kTerms; k > 0; --k) {
    cosine = S(1) - square * cosine * S(1.0 / ((2 * k - 1) * (2 * k)));
    sine = S(1) - square * sine * S(1.0 / ((2 * k) * (2 * k + 1)));
  }
  sine *= r;
  const Vec<S> magnitude = quarters * quarters;  // 0, 1 or 4
  const Vec<S> even = magnitude == S(4) ? -cosine : cosine;
  return magnitude == S(1) ? -quarters * sine : even;
}

template <typename S>
constexpr auto lanes = std::make_integer_sequence<int, kLanes<S>>{};

// Swaps, or duplicates one of, the channels of a pair.
template <typename S, int... I>
inline Vec<S> swap_pairs(Vec<S> x, std::integer_sequence<int, I...>) {
  return MMDEFOCUS_SHUFFLE(x, x, (I ^ 1)...);
}
template <typename S, int... I>
inline Vec<S> first_of_pairs(Vec<S> x, std::integer_sequence<int, I...>) {
  return MMDEFOCUS_SHUFFLE(x, x, (I & ~1)...);
}
template <typename S, int... I>
inline Vec<S> second_of_pairs(Vec<S> x, std::integer_sequence<int, I...>) {
  return MMDEFOCUS_SHUFFLE(x, x, (I | 1)...);
}
template <typename S, int... I>
inline Vec<S> alternating_signs(std::integer_sequence<int, I...>) {
  return Vec<S>{S(I & 1 ? 1 : -1)...};
}

// Rotates pairs by a row of phases (cosine, sine); with direction -1 back.
template <typename S>
inline Vec<S> rotate_pairs(Vec<S> x, Vec<S> phases, S direction) {
  const Vec<S> sine = second_of_pairs<S>(phases, lanes<S>) * (alternating_signs<S>(lanes<S>) * direction);
  return x * first_of_pairs<S>(phases, lanes<S>) + swap_pairs<S>(x, lanes<S>) * sine;
}

// exp(-lambda n), which is 1 for n = 0 even if lambda is infinite.
template <typename S>
inline Vec<S> decay_factor(Vec<S> rates, int64_t n) {
  return n == 0 ? splat<S>(S(1)) : vector_exp<S>(rates * -static_cast<S>(n));
}

// Fills the tables of head index / G: the phases of the tokens of tile index % G, and with tile 0 the decays.
template <typename S>
void bandpass_tables(const BandpassInputs<S>& in, int64_t begin, int64_t end) {
  const BandpassSizes& sizes = in.sizes;
  const int64_t D = sizes.padded_channels, pairs = sizes.channels / 2;
  constexpr int W = kLanes<S>;
  for (int64_t index = begin; index < end; ++index) {
    const TileIndex tile(sizes, index);
    if (tile.i == 0) {
      S* rates = in.tables.rates + tile.h * D;
      for (int64_t c = 0; c < D; ++c) rates[c] = in.decay && c < 2 * pairs ? in.decay[tile.h * pairs + c / 2] : S(0);
      Vec<S>* decays = vectors(in.tables.decays + tile.h * (kTile + 1) * D);
      for (int n = 0; n <= kTile; ++n) {
        for (int64_t v = 0; v < D / W; ++v) *decays++ = decay_factor<S>(vectors(rates)[v], n);
      }
    }
    if (!in.freq) continue;
    for (int64_t c = 0; c < D; c += W) {
      double turns[W], offsets[W];  // per token, and a quarter turn that makes a sine of a cosine
      for (int i = 0; i < W; ++i) {
        const int64_t pair = (c + i) / 2;
        turns[i] = pair < pairs ? static_cast<double>(in.freq[tile.h * pairs + pair]) * 0.15915494309189533577 : 0.0;
        offsets[i] = i % 2 ? -0.25 : 0.0;
      }
      for (int t = 0; t < tile.tokens; ++t) {
        constexpr double kRounder = Simd<double>::kRounder;
        const double position = static_cast<double>(in.first_position + tile.start + t);
        S fractions[W];
        for (int i = 0; i < W; ++i) {
          const double turn = position * turns[i] + offsets[i];
          fractions[i] = static_cast<S>(turn - ((turn + kRounder) - kRounder));
        }
        Vec<S> phases;
        std::memcpy(&phases, fractions, sizeof(phases));
        vectors(in.tables.phases + (tile.h * sizes.length + tile.start + t) * D)[c / W] = cosine_of_turns<S>(phases);
      }
    }
  }
}

// Loads the tokens of a tile as rows of `padded` channels. Padding channels and tokens are 0.
template <typename S>
inline void load_rows_of_tile(const HeadsInput& x, const TileIndex& tile, int64_t channels, int64_t padded,
                              Vec<S>* rows) {
  constexpr int W = kLanes<S>;
  const int64_t stride = padded / W;
  with_storage<S>(x.type, [&](auto storage) {
    using Type = decltype(storage);
    const auto* source = reinterpret_cast<const typename Type::Element*>(x.at(tile.b, tile.h, tile.start));
    for (int t = 0; t < tile.tokens; ++t) {
      for (int64_t v = 0; v < stride; ++v) {
        const int lanes = static_cast<int>(std::clamp<int64_t>(channels - v * W, 0, W));
        load_tile_as<S, Type>(source + t * x.time_stride + v * W * x.channel_stride, x.channel_stride, 0, lanes, 1, 0,
                              rows + t * stride + v);
      }
    }
  });
  std::fill(rows + tile.tokens * stride, rows + kTile * stride, Vec<S>{});
}

// The inverse: stores the tokens of the sequence.
template <typename S>
inline void store_rows_of_tile(const Vec<S>* rows, const TileIndex& tile, int64_t channels, int64_t stride,
                               const HeadsOutput& x) {
  constexpr int W = kLanes<S>;
  with_storage<S>(x.type, [&](auto storage) {
    using Type = decltype(storage);
    auto* target = reinterpret_cast<typename Type::Element*>(x.at(tile.b, tile.h, tile.start));
    for (int t = 0; t < tile.tokens; ++t) {
      for (int64_t c = 0; c < channels; c += W) {
        const int lanes = static_cast<int>(std::min<int64_t>(W, channels - c));
        store_tile_as<S, Type>(rows + t * stride + c / W, x.channel_stride, 0, lanes, 1,
                               target + t * x.time_stride + c * x.channel_stride);
      }
    }
  });
}

// Computes the scalar products of the rows of two tiles of tokens, one lane per token.
template <typename S>
inline void products_of_rows(const Vec<S>* a, const Vec<S>* b, int64_t stride, Vec<S>* out) {
  constexpr int W = kLanes<S>;
  for (int block = 0; block < kTileVectors<S>; ++block) {
    Vec<S> products[W] = {};
    for (int i = 0; i < W; ++i) {
      const int64_t row = (block * W + i) * stride;
      for (int64_t v = 0; v < stride; ++v) products[i] += a[row + v] * b[row + v];
    }
    out[block] = sums_of_lanes<S>(products);
  }
}

// Rotates the rows of a tile.
template <typename S>
inline void rotate_rows(const BandpassInputs<S>& in, const TileIndex& tile, S direction, Vec<S>* rows) {
  if (!in.tables.phases) return;
  const int64_t D = in.sizes.padded_channels;
  const Vec<S>* phases = vectors<S>(in.tables.phases + (tile.h * in.sizes.length + tile.start) * D);
  for (int64_t i = 0; i < tile.tokens * (D / kLanes<S>); ++i) rows[i] = rotate_pairs<S>(rows[i], phases[i], direction);
}

// Distance of the tokens of a tile to a boundary: n for token n, or `last` - n.
struct Distances {
  bool from_first;
  int last;

  int at(int n) const { return from_first ? n : last - n; }
};
constexpr Distances kFromFirst{true, 0}, kToEnd{false, kTile};

// Scales row n by exp(-lambda distance) and `factor`.
template <typename S>
inline void scale_rows(const BandpassInputs<S>& in, const TileIndex& tile, Distances distances, S factor,
                       const Vec<S>* rows, Vec<S>* scaled) {
  const int64_t vectors_of_row = in.sizes.padded_channels / kLanes<S>;
  const Vec<S>* decays = vectors<S>(in.tables.decays) + tile.h * (kTile + 1) * vectors_of_row;
  for (int n = 0; n < tile.tokens; ++n) {
    const Vec<S>* decay = decays + distances.at(n) * vectors_of_row;
    for (int64_t v = 0; v < vectors_of_row; ++v) {
      scaled[n * vectors_of_row + v] = rows[n * vectors_of_row + v] * (decay[v] * factor);
    }
  }
  std::fill(scaled + tile.tokens * vectors_of_row, scaled + kTile * vectors_of_row, Vec<S>{});
}

// Keys and values of up to `tiles` tiles as the kernels read them, in the memory of a thread. Keys are rotated, and
// scaled by their distance to the first token after their tile or, in `after`, to the first token of it.
template <typename S>
class PackedKeys {
 public:
  static int64_t scratch_vectors(const BandpassSizes& sizes, int64_t tiles) {
    return (tiles + 1) * kTile * (2 * sizes.padded_channels + sizes.padded_values) / kLanes<S>;
  }

  PackedKeys(const BandpassInputs<S>& in, int64_t tiles, Scratch<S>& scratch)
      : in_(in), stride_(in.sizes.padded_channels / kLanes<S>), value_stride_(in.sizes.padded_values / kLanes<S>),
        rows_(scratch.take(kTile * stride_)), before_(scratch.take(tiles * kTile * stride_)),
        after_(in.causal ? nullptr : scratch.take(tiles * kTile * stride_)),
        values_(scratch.take(tiles * kTile * value_stride_)) {}

  void pack(const TileIndex& tile, int64_t slot) {
    load_rows_of_tile<S>(in_.k, tile, in_.sizes.channels, in_.sizes.padded_channels, rows_);
    rotate_rows<S>(in_, tile, S(1), rows_);
    scale_rows<S>(in_, tile, kToEnd, S(1), rows_, before_ + slot * kTile * stride_);
    if (after_) scale_rows<S>(in_, tile, kFromFirst, S(1), rows_, after_ + slot * kTile * stride_);
    load_rows_of_tile<S>(in_.v, tile, in_.sizes.values, in_.sizes.padded_values,
                         values_ + slot * kTile * value_stride_);
  }

  // Packs the tiles of a head up to `end` that are not packed yet.
  void pack_head(int64_t head, int64_t end) {
    if (head != head_) packed_ = 0;
    head_ = head;
    for (; packed_ < end; ++packed_) pack(TileIndex(in_.sizes, head, packed_), packed_);
  }

  const S* before(int64_t slot) const { return numbers<S>(before_ + slot * kTile * stride_); }  // (N, D)
  const S* after(int64_t slot) const { return numbers<S>(after_ + slot * kTile * stride_); }
  const S* values(int64_t slot) const { return numbers<S>(values_ + slot * kTile * value_stride_); }  // (N, W)

 private:
  const BandpassInputs<S>& in_;
  int64_t stride_, value_stride_, head_ = -1, packed_ = 0;
  Vec<S>*rows_, *before_, *after_, *values_;
};

}  // namespace
