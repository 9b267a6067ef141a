// Backward pass of retention for the instruction set of the including file, in three steps that work on all tiles, or
// all rows of states, in parallel: local gradients of the states before all tiles, gradients passed from tile to tile,
// and gradients of the tokens of all tiles.
// Shapes: see tiles.h.
#pragma once

#include "cpu/bandpass/gradients.h"
#include "cpu/bandpass/retention_forward.h"

namespace {

// Computes the part of the outputs of each tile in the gradient of the state before it.
template <typename S>
void retention_local_gradients(const BandpassInputs<S>& in, const RetentionGradients<S>& grad, int64_t begin,
                               int64_t end) {
  const BandpassSizes& sizes = in.sizes;
  const int64_t D = sizes.padded_channels, W = sizes.padded_values, stride = D / kLanes<S>;
  Scratch<S> scratch(Queries<S>::scratch_vectors(sizes) + GradOutputs<S>::scratch_vectors(sizes));
  Queries<S> queries(in, scratch);
  GradOutputs<S> grad_y(sizes, scratch);
  for (int64_t index = begin; index < end; ++index) {
    const TileIndex tile(sizes, index);
    queries.load(tile);
    grad_y.load(grad.grad_y, tile, sizes);
    Vec<S>* gradient = vectors(grad.states + index * W * D);
    multiply<S, Left::kColumns>(static_cast<int>(W), static_cast<int>(stride), tile.tokens, numbers<S>(grad_y.rows), W,
                                queries.scaled(kBefore), stride,
                                [=](int w, int v, Vec<S> sum) { gradient[w * stride + v] = sum; });
  }
}

// Passes the gradients back: replaces the local gradient of the state before a tile by that of the state after it. Item
// i is row i % W of head i / W.
template <typename S>
void retention_pass_gradients(const BandpassInputs<S>& in, const RetentionGradients<S>& grad, int64_t begin,
                              int64_t end) {
  const BandpassSizes& sizes = in.sizes;
  const int64_t D = sizes.padded_channels, W = sizes.padded_values, stride = D / kLanes<S>;
  Scratch<S> scratch(stride);
  Vec<S>* carried = scratch.take(stride);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t head = item / W, row = item % W;
    const bool present = row < sizes.values;
    const Vec<S>* decays = vectors<S>(in.tables.decays) + head % sizes.heads * (kTile + 1) * stride;
    const int64_t outer_row = (head * sizes.values + row) * sizes.channels, bytes = sizes.channels * sizeof(S);
    std::fill_n(carried, stride, Vec<S>{});
    if (grad.last_state && present) std::memcpy(carried, grad.last_state + outer_row, bytes);
    Vec<S>* rates = vectors(grad.state_rates + item * D);
    std::fill_n(rates, stride, Vec<S>{});
    for (int64_t i = sizes.tiles - 1; i >= 0; --i) {
      const int64_t offset = ((head * sizes.tiles + i) * W + row) * D;
      Vec<S>* gradient = vectors(grad.states + offset);
      const Vec<S>* state = vectors<S>(grad.saved_states + offset);
      const int distance = state_distance(sizes, i);
      for (int64_t v = 0; v < stride; ++v) {
        const Vec<S> after = carried[v], decayed = after * decays[distance * stride + v];
        rates[v] += decayed * state[v] * static_cast<S>(distance);
        carried[v] = decayed + gradient[v];
        gradient[v] = after;
      }
    }
    if (grad.initial_state && present) std::memcpy(grad.initial_state + outer_row, carried, bytes);
  }
}

template <typename S>
class RetentionBackward {
 public:
  RetentionBackward(const BandpassInputs<S>& in, const RetentionGradients<S>& grad)
      : in_(in), grad_(grad), sizes_(in.sizes), D_(sizes_.padded_channels), W_(sizes_.padded_values),
        stride_(D_ / kLanes<S>), value_stride_(W_ / kLanes<S>),
        scratch_(PackedKeys<S>::scratch_vectors(sizes_, 1) + Queries<S>::scratch_vectors(sizes_) +
                 GradOutputs<S>::scratch_vectors(sizes_) + (2 * kTile + D_ + W_) * V + (5 * kTile + 2) * stride_ + D_ +
                 D_ * value_stride_),
        packed_(in, 1, scratch_), queries_(in, scratch_), grad_y_(sizes_, scratch_), logits_(scratch_.take(kTile * V)),
        grad_logits_(scratch_.take(kTile * V)), grad_queries_(scratch_.take(D_ * V)),
        grad_values_(scratch_.take(W_ * V)), total_(scratch_.take(kTile * stride_)),
        grad_keys_(scratch_.take(kTile * stride_)), rows_(scratch_.take(kTile * stride_)),
        rotated_(scratch_.take(kTile * stride_)), state_keys_(scratch_.take(kTile * stride_)),
        query_rates_(scratch_.take(stride_)), key_rates_(scratch_.take(stride_)), grad_distances_(scratch_.take(D_)),
        transposed_state_(scratch_.take(D_ * value_stride_)) {}

  void run(const TileIndex& tile, int64_t index) {
    packed_.pack(tile, 0);
    queries_.load(tile);
    grad_y_.load(grad_.grad_y, tile, sizes_);
    std::fill_n(query_rates_, stride_, Vec<S>{});
    std::fill_n(key_rates_, stride_, Vec<S>{});
    const int count = queries_.logits(packed_, 0, tile, S(0), logits_);
    differentiate_logits(tile, count);
    differentiate_queries(tile, index, count);
    differentiate_keys(tile, index, count);
  }

 private:
  static constexpr int V = kTileVectors<S>;

  void differentiate_logits(const TileIndex& tile, int count) {
    Vec<S>* grad_logits = grad_logits_;
    for_key_groups<S>(count, true, [&](int s, int rows, int first) {
      first /= kLanes<S>;
      multiply<S, Left::kRows>(rows, queries_.vectors_of_queries() - first, static_cast<int>(sizes_.values),
                               packed_.values(0) + s * W_, W_, grad_y_.transposed + first, V,
                               [=](int r, int v, Vec<S> sum) { grad_logits[(s + r) * V + first + v] = sum; });
    });
    queries_.mask_later_keys(count, S(0), grad_logits_);
    separate_self_gradients<S>(tile, grad_logits_, grad_self(tile));
  }

  void differentiate_queries(const TileIndex& tile, int64_t index, int count) {
    std::fill_n(grad_queries_, D_ * V, Vec<S>{});
    std::fill_n(grad_distances_, D_, Vec<S>{});
    std::fill_n(total_, kTile * stride_, Vec<S>{});
    std::fill_n(grad_keys_, kTile * stride_, Vec<S>{});
    if (has_direct_channels<S>(in_, tile.h)) {
      direct_gradients<S>(in_, tile, numbers<S>(queries_.rows()), numbers<S>(queries_.keys()), grad_logits_,
                          reinterpret_cast<S*>(total_), reinterpret_cast<S*>(grad_keys_),
                          reinterpret_cast<S*>(query_rates_));
    }
    queries_.select(kBefore, tile);
    gradients(count, grad_logits_)
        .add_queries(queries_, kBefore, packed_.before(0), S(-kTile), grad_queries_, grad_distances_);
    Vec<S>* grad_queries = grad_queries_;
    multiply<S, Left::kColumns>(static_cast<int>(D_), queries_.vectors_of_queries(), static_cast<int>(sizes_.values),
                                grad_.saved_states + index * W_ * D_, D_, grad_y_.transposed, V,
                                [=](int c, int v, Vec<S> sum) { grad_queries[c * V + v] += sum; });
    transpose<S>(grad_queries_, static_cast<int>(stride_), queries_.vectors_of_queries(), V, stride_, rows_);
    unscale_gradients<S>(in_, tile, kFromFirst, queries_.scaled(kBefore), rows_, total_, query_rates_);
    add_sums_of_lanes<S>(grad_distances_, stride_, query_rates_);
    std::copy_n(query_rates_, stride_, vectors(grad_.rates + 2 * index * D_));
    store_gradients<S>(in_, tile, in_.k, grad_self(tile), in_.scale, queries_.rows(), total_, rows_,
                       vectors(grad_.phases + 2 * index * D_), grad_.q);
  }

  void differentiate_keys(const TileIndex& tile, int64_t index, int count) {
    std::copy_n(grad_keys_, kTile * stride_, total_);  // of direct channels
    std::fill_n(grad_keys_, kTile * stride_, Vec<S>{});
    gradients(count, grad_logits_).add_keys(queries_, kBefore, grad_keys_);
    unscale_gradients<S>(in_, tile, kToEnd, vectors<S>(packed_.before(0)), grad_keys_, total_, key_rates_);
    std::fill_n(grad_values_, kTile * value_stride_, Vec<S>{});
    gradients(count, logits_).add_values(tile, grad_y_, grad_values_);
    if (tile.i + 1 < sizes_.tiles || grad_.last_state) differentiate_state(tile, index, count);
    std::copy_n(key_rates_, stride_, vectors(grad_.rates + (2 * index + 1) * D_));
    load_rows_of_tile<S>(in_.k, tile, sizes_.channels, D_, rotated_);
    rotate_rows<S>(in_, tile, S(1), rotated_);
    store_gradients<S>(in_, tile, in_.q, grad_self(tile), S(1), rotated_, total_, rows_,
                       vectors(grad_.phases + (2 * index + 1) * D_), grad_.k);
    store_rows_of_tile<S>(grad_values_, tile, sizes_.values, value_stride_, grad_.v);
  }

  // The gradients of keys and values by the state after their tile.
  void differentiate_state(const TileIndex& tile, int64_t index, int count) {
    const Vec<S>* grad_state = vectors<S>(grad_.states + index * W_ * D_);
    const Vec<S>* keys = keys_for_state<S>(in_, tile, packed_, state_keys_);
    Vec<S>*grad_keys = grad_keys_, *grad_values = grad_values_;
    const int64_t stride = stride_, value_stride = value_stride_;
    multiply<S, Left::kRows>(count, static_cast<int>(stride), static_cast<int>(sizes_.values), packed_.values(0), W_,
                             grad_state, stride, [=](int s, int v, Vec<S> sum) { grad_keys[s * stride + v] = sum; });
    unscale_gradients<S>(in_, tile, to_state(sizes_, tile), keys, grad_keys_, total_, key_rates_);
    transpose<S>(grad_state, static_cast<int>(value_stride_), static_cast<int>(stride_), stride_, value_stride_,
                 transposed_state_);
    multiply<S, Left::kRows>(count, static_cast<int>(value_stride), static_cast<int>(sizes_.channels), numbers<S>(keys),
                             D_, transposed_state_, value_stride,
                             [=](int s, int v, Vec<S> sum) { grad_values[s * value_stride + v] += sum; });
  }

  LogitGradients<S> gradients(int count, const Vec<S>* grad_logits) const { return {in_, grad_logits, count, true}; }

  S* grad_self(const TileIndex& tile) const { return grad_.self + tile.head * sizes_.length + tile.start; }

  const BandpassInputs<S>& in_;
  const RetentionGradients<S>& grad_;
  const BandpassSizes& sizes_;
  int64_t D_, W_, stride_, value_stride_;
  Scratch<S> scratch_;
  PackedKeys<S> packed_;
  Queries<S> queries_;
  GradOutputs<S> grad_y_;
  Vec<S>*logits_, *grad_logits_, *grad_queries_, *grad_values_;
  Vec<S>*total_, *grad_keys_, *rows_, *rotated_, *state_keys_;
  Vec<S>*query_rates_, *key_rates_, *grad_distances_, *transposed_state_;
};

template <typename S>
void retention_backward(const BandpassInputs<S>& in, const RetentionGradients<S>& grad, int64_t begin, int64_t end) {
  RetentionBackward<S> backward(in, grad);
  for (int64_t index = begin; index < end; ++index) backward.run(TileIndex(in.sizes, index), index);
}

}  // namespace
