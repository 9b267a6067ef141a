// Backward pass of band-pass attention for the instruction set of the including file.
//
// A tile of queries goes through the keys as in the forward pass, and recomputes the weights from the saved logarithms
// of the sums. Gradients of its queries are complete after that; those of keys and values are partial sums of a group
// of tiles of queries, which a second kernel adds up in a fixed order.
//
// Shapes: see tiles.h; M groups.
#pragma once

#include "cpu/bandpass/gradients.h"

namespace {

// Copies the gradients of logits of keys before, or after, the query, and leaves 0 elsewhere.
template <typename S>
inline void select_side(Side side, int keys, const Vec<S>* grad_logits, Vec<S>* selected) {
  constexpr int V = kTileVectors<S>;
  for (int v = 0; v < V; ++v) {
    const Vec<S> t = query_numbers<S>(v);
    for (int s = 0; s < keys; ++s) {
      const Vec<S> gradient = grad_logits[s * V + v];
      selected[s * V + v] = (side == kBefore ? t > static_cast<S>(s) : t < static_cast<S>(s)) ? gradient : Vec<S>{};
    }
  }
}

template <typename S>
class AttentionBackward {
 public:
  AttentionBackward(const BandpassInputs<S>& in, const AttentionGradients<S>& grad)
      : in_(in), grad_(grad), sizes_(in.sizes), stride_(sizes_.padded_channels / kLanes<S>),
        scratch_(PackedKeys<S>::scratch_vectors(sizes_, sizes_.tiles) + Queries<S>::scratch_vectors(sizes_) +
                 GradOutputs<S>::scratch_vectors(sizes_) + (3 * kTile + 2) * V + (2 * kTile + 1) * stride_ +
                 (2 * sizes_.padded_channels + sizes_.padded_values) * V + sizes_.padded_channels),
        packed_(in, sizes_.tiles, scratch_), queries_(in, scratch_), grad_y_(sizes_, scratch_),
        weights_(scratch_.take(kTile * V)), grad_logits_(scratch_.take(kTile * V)), selected_(scratch_.take(kTile * V)),
        lse_(scratch_.take(V)), delta_(scratch_.take(V)), total_(scratch_.take(kTile * stride_)),
        rows_(scratch_.take(kTile * stride_)), grad_rates_(scratch_.take(stride_)),
        grad_scaled_{scratch_.take(sizes_.padded_channels * V), scratch_.take(sizes_.padded_channels * V)},
        output_(scratch_.take(sizes_.padded_values * V)), grad_distances_(scratch_.take(sizes_.padded_channels)) {}

  void run(int64_t head, int64_t group) {
    for (int side = kBefore; side <= last_side(); ++side) {
      std::fill_n(grad_keys(side, head, group), sizes_.tiles * kTile * stride_, Vec<S>{});
    }
    std::fill_n(grad_values(head, group), sizes_.tiles * kTile * (sizes_.padded_values / kLanes<S>), Vec<S>{});
    packed_.pack_head(head, sizes_.tiles);
    for (int64_t i = group; i < sizes_.tiles; i += grad_.groups) backward_queries(TileIndex(sizes_, head, i), group);
  }

 private:
  static constexpr int V = kTileVectors<S>;

  int last_side() const { return in_.causal ? kBefore : kAfter; }

  Vec<S>* grad_keys(int side, int64_t head, int64_t group) const {
    S* gradients = side == kBefore ? grad_.keys_before : grad_.keys_after;
    return vectors(gradients) + (group * sizes_.batch * sizes_.heads + head) * sizes_.tiles * kTile * stride_;
  }

  Vec<S>* grad_values(int64_t head, int64_t group) const {
    const int64_t row = (group * sizes_.batch * sizes_.heads + head) * sizes_.tiles * kTile;
    return vectors(grad_.values + row * sizes_.padded_values);
  }

  S* grad_self(const TileIndex& tile) const { return grad_.self + tile.head * sizes_.length + tile.start; }

  void backward_queries(const TileIndex& tile, int64_t group) {
    const int64_t value_stride = sizes_.padded_values / kLanes<S>;
    queries_.load(tile);
    grad_y_.load(grad_.grad_y, tile, sizes_);
    load_rows_of_tile<S>(grad_.y, tile, sizes_.values, sizes_.padded_values, output_);
    products_of_rows<S>(output_, grad_y_.rows, value_stride, delta_);
    std::fill_n(lse_, V, Vec<S>{});
    std::memcpy(lse_, grad_.lse + tile.head * sizes_.length + tile.start, tile.tokens * sizeof(S));
    std::fill_n(total_, kTile * stride_, Vec<S>{});
    std::fill_n(grad_rates_, stride_, Vec<S>{});
    std::fill_n(grad_distances_, sizes_.padded_channels, Vec<S>{});
    for (int side = kBefore; side <= last_side(); ++side) {
      std::fill_n(grad_scaled_[side], sizes_.padded_channels * V, Vec<S>{});
    }
    for (int64_t j = 0; j < (in_.causal ? tile.i + 1 : sizes_.tiles); ++j) {
      backward_keys(TileIndex(sizes_, tile.head, j), group);
    }
    finish_queries();
  }

  void backward_keys(const TileIndex& keys, int64_t group) {
    const TileIndex& tile = queries_.tile();
    const bool same = keys.i == tile.i;
    const int count = queries_.logits(packed_, keys.i, keys, -HUGE_VAL, weights_);
    for (int s = 0; s < count; ++s) {
      for (int v = 0; v < queries_.vectors_of_queries(); ++v) {
        weights_[s * V + v] = vector_exp<S>(weights_[s * V + v] - lse_[v]);
      }
    }
    const int64_t value_stride = sizes_.padded_values / kLanes<S>;
    LogitGradients<S>{in_, weights_, count, same && in_.causal}.add_values(
        tile, grad_y_, grad_values(tile.head, group) + keys.i * kTile * value_stride);
    const Vec<S>*weights = weights_, *delta = delta_;
    Vec<S>* grad_logits = grad_logits_;
    for_key_groups<S>(count, same && in_.causal, [&](int s, int rows, int first) {
      first /= kLanes<S>;
      multiply<S, Left::kRows>(rows, queries_.vectors_of_queries() - first, static_cast<int>(sizes_.values),
                               packed_.values(keys.i) + s * sizes_.padded_values, sizes_.padded_values,
                               grad_y_.transposed + first, V, [=](int r, int v, Vec<S> sum) {
                                 const int i = (s + r) * V + first + v;
                                 grad_logits[i] = weights[i] * (sum - delta[first + v]);
                               });
      for (int r = 0; r < rows; ++r) std::fill_n(grad_logits + (s + r) * V, first, Vec<S>{});
    });
    if (same) {
      separate_self_gradients<S>(tile, grad_logits_, grad_self(tile));
      add_direct();
    }
    if (keys.i <= tile.i) backward_side(kBefore, keys, count, group);
    if (keys.i >= tile.i && !in_.causal) backward_side(kAfter, keys, count, group);
  }

  void backward_side(Side side, const TileIndex& keys, int count, int64_t group) {
    const TileIndex& tile = queries_.tile();
    const bool same = keys.i == tile.i, halves = same && !in_.causal;
    if (halves) select_side<S>(side, count, grad_logits_, selected_);
    const int64_t distance = std::abs(tile.i - keys.i) - 1;
    const LogitGradients<S> gradients{in_, halves ? selected_ : grad_logits_, count, same && in_.causal};
    queries_.select(side, keys);
    gradients.add_keys(queries_, side, grad_keys(side, tile.head, group) + keys.i * kTile * stride_);
    const S* key_rows = side == kBefore ? packed_.before(keys.i) : packed_.after(keys.i);
    gradients.add_queries(queries_, side, key_rows, static_cast<S>(distance * kTile), grad_scaled_[side],
                          grad_distances_);
  }

  void add_direct() {
    const TileIndex& tile = queries_.tile();
    if (!grad_.direct_keys) return;
    S* grad_keys = grad_.direct_keys + tile.row(sizes_) * sizes_.padded_channels;
    std::fill_n(grad_keys, kTile * sizes_.padded_channels, S(0));
    direct_gradients<S>(in_, tile, numbers<S>(queries_.rows()), numbers<S>(queries_.keys()), grad_logits_,
                        reinterpret_cast<S*>(total_), grad_keys, reinterpret_cast<S*>(grad_rates_));
  }

  void finish_queries() {
    const TileIndex& tile = queries_.tile();
    for (int side = kBefore; side <= last_side(); ++side) {
      transpose<S>(grad_scaled_[side], static_cast<int>(stride_), queries_.vectors_of_queries(), V, stride_, rows_);
      unscale_gradients<S>(in_, tile, side == kBefore ? kFromFirst : kToEnd, queries_.scaled(Side(side)), rows_, total_,
                           grad_rates_);
    }
    add_sums_of_lanes<S>(grad_distances_, stride_, grad_rates_);
    const int64_t index = tile.head * sizes_.tiles + tile.i;
    std::copy_n(grad_rates_, stride_, vectors(grad_.rates + 2 * index * sizes_.padded_channels));
    store_gradients<S>(in_, tile, in_.k, grad_self(tile), in_.scale, queries_.rows(), total_, rows_,
                       vectors(grad_.phases + 2 * index * sizes_.padded_channels), grad_.q);
  }

  const BandpassInputs<S>& in_;
  const AttentionGradients<S>& grad_;
  const BandpassSizes& sizes_;
  int64_t stride_;
  Scratch<S> scratch_;
  PackedKeys<S> packed_;
  Queries<S> queries_;
  GradOutputs<S> grad_y_;
  Vec<S>*weights_, *grad_logits_, *selected_, *lse_, *delta_;
  Vec<S>*total_, *rows_, *grad_rates_;
  Vec<S>* grad_scaled_[2];           // (D, N) by side
  Vec<S>*output_, *grad_distances_;  // (N, W); one vector per channel
};

// Work on the items begin ... end; item i is group i % M of head i / M.
template <typename S>
void attention_backward(const BandpassInputs<S>& in, const AttentionGradients<S>& grad, int64_t begin, int64_t end) {
  AttentionBackward<S> backward(in, grad);
  for (int64_t item = begin; item < end; ++item) backward.run(item / grad.groups, item % grad.groups);
}

// Adds up the groups of the gradients of scaled keys and of values, and stores the gradients of keys and values.
template <typename S>
void attention_backward_keys(const BandpassInputs<S>& in, const AttentionGradients<S>& grad, int64_t begin,
                             int64_t end) {
  const BandpassSizes& sizes = in.sizes;
  const int64_t D = sizes.padded_channels, W = sizes.padded_values, stride = D / kLanes<S>;
  const int64_t group_rows = sizes.batch * sizes.heads * sizes.tiles * kTile;
  Scratch<S> scratch((4 * kTile + 1) * stride);
  Vec<S>* rotated = scratch.take(kTile * stride);
  Vec<S>* scaled = scratch.take(kTile * stride);
  Vec<S>* total = scratch.take(kTile * stride);
  Vec<S>* partners = scratch.take(kTile * stride);
  Vec<S>* grad_rates = scratch.take(stride);
  const auto add_groups = [&](S* rows, int64_t width) {
    for (int64_t group = 1; group < grad.groups; ++group) {
      const Vec<S>* others = vectors<S>(rows + group * group_rows * width);
      for (int64_t i = 0; i < kTile * (width / kLanes<S>); ++i) vectors(rows)[i] += others[i];
    }
    return vectors(rows);
  };
  for (int64_t index = begin; index < end; ++index) {
    const TileIndex tile(sizes, index);
    const int64_t row = tile.row(sizes);
    load_rows_of_tile<S>(in.k, tile, sizes.channels, D, rotated);
    rotate_rows<S>(in, tile, S(1), rotated);
    if (grad.direct_keys) {
      std::copy_n(vectors(grad.direct_keys + row * D), kTile * stride, total);
    } else {
      std::fill_n(total, kTile * stride, Vec<S>{});
    }
    std::fill_n(grad_rates, stride, Vec<S>{});
    const auto add_side = [&](Distances distances, S* gradients) {
      scale_rows<S>(in, tile, distances, S(1), rotated, scaled);
      unscale_gradients<S>(in, tile, distances, scaled, add_groups(gradients + row * D, D), total, grad_rates);
    };
    add_side(kToEnd, grad.keys_before);
    if (!in.causal) add_side(kFromFirst, grad.keys_after);
    std::copy_n(grad_rates, stride, vectors(grad.rates + (2 * index + 1) * D));
    store_gradients<S>(in, tile, in.q, grad.self + tile.head * sizes.length + tile.start, S(1), rotated, total,
                       partners, vectors(grad.phases + (2 * index + 1) * D), grad.k);
    store_rows_of_tile<S>(add_groups(grad.values + row * W, W), tile, sizes.values, W / kLanes<S>, grad.v);
  }
}

}  // namespace
