// The backward pass of the fused De-focus scan for the instruction set of the including file; see forward_kernel.h for
// the formulas. Chunks are visited in reverse. Each is computed again from the state that the forward pass saved before
// it, which needs L / kChunk states of memory where storing all of them would need L.
// Shapes: B batch, E channels, L time, N state, M segments per sequence.
#pragma once

#include "cpu/defocus_scan/forward_kernel.h"

namespace {

// Working memory for one vector of channels over one chunk, beside that of the scan.
template <typename S>
struct DefocusTiles {
  Vec<S>*scanned, *grad_softplus;    // (length): result of the scan; derivative of delta by dt
  Vec<S>*grad_normed, *grad_u_skip;  // (length): gradient of the normed result; gradient of u through D
  Vec<S>*D, *dt_bias;                // (1), as all that follows; these persist from chunk to chunk
  Vec<S>*grad_D, *grad_dt_bias, *total_delta;

  static constexpr int64_t kSize = 4 * kChunk, kPersistentSize = 5;

  DefocusTiles(Vec<S>* memory, Vec<S>* persistent) {
    for (Vec<S>** tile : {&scanned, &grad_softplus, &grad_normed, &grad_u_skip}) {
      *tile = std::exchange(memory, memory + kChunk);
    }
    for (Vec<S>** row : {&D, &dt_bias, &grad_D, &grad_dt_bias, &total_delta}) *row = persistent++;
  }
};

// Work of one thread, band by band, and within a band chunk by chunk from the end of the segment to its start.
template <typename S, int N_>
class DefocusBackward {
 public:
  DefocusBackward(const DefocusInputs<S>& in, const DefocusGradients<S>& gradients, const ChannelBlocks& blocks)
      : in_(in), gradients_(gradients), blocks_(blocks), N_states_(N_ ? N_ : static_cast<int>(in.state)),
        vectors_(vectors_per_block<S>(blocks)), band_(std::min(kBandBlocks, blocks.per_sequence)),
        scan_(N_states_, blocks.block_channels, band_),
        memory_(vectors_ * (3 * kChunk + DefocusTiles<S>::kSize + band_ * DefocusTiles<S>::kPersistentSize)) {
    inverse_rms_ = memory_.take(vectors_ * kChunk);
    mean_product_ = memory_.take(vectors_ * kChunk);
    z_ = memory_.take(vectors_ * kChunk);
    tiles_ = memory_.take(vectors_ * DefocusTiles<S>::kSize);
    persistent_ = memory_.take(0);
  }

  void run(int64_t first_block, int64_t count, const Segment& segment) {
    const auto for_each_vector = [&](const auto& visit) {
      for (current_ = 0; current_ < count; ++current_) {
        const Block<S> block(blocks_, first_block + current_);
        for (int v = 0; v < block.vectors; ++v) visit(block, v);
      }
    };
    for_each_vector([&](const Block<S>& block, int v) { begin(block, segment, v); });
    for (int64_t start = (num_chunks(segment.end) - 1) * kChunk; start >= segment.begin; start -= kChunk) {
      const int length = static_cast<int>(std::min<int64_t>(kChunk, segment.end - start));
      for (current_ = 0; current_ < count; ++current_) {
        const bool is_last = current_ + 1 == count;
        const Block<S> next(blocks_, first_block + (is_last ? 0 : current_ + 1));
        const int64_t next_start = is_last ? start - kChunk : start;
        reverse(Block<S>(blocks_, first_block + current_), first_block + current_, start, length,
                {next, next_start, next_start >= segment.begin});
      }
    }
    for_each_vector([&](const Block<S>& block, int v) { end(block, segment, v); });
  }

 private:
  int N() const { return N_ ? N_ : N_states_; }

  // Of the current block.
  ReverseTiles<S> scan_tiles(int v) const { return scan_.vector(v, current_); }
  DefocusTiles<S> tiles(int v) const {
    return {tiles_ + v * DefocusTiles<S>::kSize,
            persistent_ + (current_ * vectors_ + v) * DefocusTiles<S>::kPersistentSize};
  }

  void reverse(const Block<S>& block, int64_t block_index, int64_t start, int length, const NextVisit<S>& next) {
    const int64_t L = in_.length;
    const S* B = in_.B + (block.b * L + start) * N();
    const S* C = in_.C + (block.b * L + start) * N();
    const int64_t partial_row = (block_index * L + start) * N();
    const ReverseTiles<S> first = scan_tiles(0);
    const int stride = static_cast<int>(ReverseTiles<S>::size(N_states_));
    load_block<S>(in_.u, block, start, length, stride, 0, first.u);
    load_block<S>(in_.dt, block, start, length, stride, 0, first.delta);
    load_block<S>(in_.z, block, start, length, kChunk, 0, z_);
    load_block<S>(gradients_.grad_y, block, start, length, stride, 0, first.grad_y);
    for (int v = 0; v < block.vectors; ++v) recompute(block, v, start, length, B, C, next_steps(next, v));
    reduce_groups<S>(inverse_rms_, block, in_.group_size, length, InverseRms<S>{in_.group_size, in_.eps});
    for (int v = 0; v < block.vectors; ++v) reverse_gate(v, length);
    if (gradients_.grad_z.data) store_block<S>(z_, block, start, length, kChunk, gradients_.grad_z);
    reduce_groups<S>(mean_product_, block, in_.group_size, length, [&](S sum) { return sum / in_.group_size; });
    for (int v = 0; v < block.vectors; ++v) reverse_norm(v, length);
    reverse_chunk<S, N_>(scan_, current_, block.vectors, N(), length, B, C, gradients_.grad_B + partial_row,
                         gradients_.grad_C + partial_row);
    if (!gradients_.grad_z.data) return;
    for (int v = 0; v < block.vectors; ++v) reverse_drive(v, length);
    store_block<S>(first.grad_drive, block, start, length, stride, gradients_.grad_u);
    store_block<S>(first.grad_delta_decay, block, start, length, stride, gradients_.grad_dt);
  }

  void begin(const Block<S>& block, const Segment& segment, int v) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    const int64_t e = block.channel(v);
    const int lanes = block.lanes(v);
    load_decay_rates<S>(in_.A, e, lanes, N(), s.A);
    load_tile<S>(in_.D, 0, e, 0, lanes, 1, d.D);
    load_tile<S>(in_.dt_bias, 0, e, 0, lanes, 1, d.dt_bias);
    *d.grad_D = *d.grad_dt_bias = *d.total_delta = Vec<S>{};
    std::fill_n(s.grad_A, N(), Vec<S>{});
    std::fill_n(s.grad_state, N(), Vec<S>{});
    const InputView& grad_final_states = gradients_.grad_final_states;
    if (grad_final_states.data) load_tile<S>(grad_final_states, segment.row, e, 0, lanes, N(), s.grad_state);
  }

  NextSteps next_steps(const NextVisit<S>& next, int v) const {
    NextSteps steps;
    for (const InputView& x : {in_.u, in_.dt, in_.z, gradients_.grad_y}) next.add(x, v, steps);
    if (gradients_.grad_z.data) {
      for (const OutputView& x : {gradients_.grad_u, gradients_.grad_dt, gradients_.grad_z}) next.add(x, v, steps);
    }
    return steps;
  }

  // The forward pass of the chunk up to the result of the scan, and the squares for the norm.
  void recompute(const Block<S>& block, int v, int64_t start, int length, const S* B, const S* C,
                 const NextSteps& next) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    const int64_t e = block.channel(v), E = blocks_.channels;
    const int lanes = block.lanes(v);
    for (int t = 0; t < length; ++t) {
      s.delta[t] = vector_softplus<S>(s.delta[t] + *d.dt_bias, &d.grad_softplus[t]) * in_.inverse_delta_scale;
      d.grad_softplus[t] *= in_.inverse_delta_scale;
      *d.total_delta += s.delta[t];
    }
    const S* states = gradients_.chunk_states + chunk_offset(block.b, start, in_.length, N(), E);
    load_rows<S>(states, E, N(), e, lanes, s.initial_state);
    recompute_chunk<S, N_, true>(s, N(), length, B, C, next, d.scanned);
    for (int t = 0; t < length; ++t) inverse_rms_[v * kChunk + t] = d.scanned[t] * d.scanned[t];
  }

  void reverse_gate(int v, int length) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    const Vec<S>* inverse_rms = inverse_rms_ + v * kChunk;
    Vec<S>* z = z_ + v * kChunk;
    for (int t = 0; t < length; ++t) {
      const Vec<S> sigmoid = vector_sigmoid<S>(z[t]), normed = d.scanned[t] * inverse_rms[t];
      const Vec<S> grad_normed = s.grad_y[t] * z[t] * sigmoid;
      // silu'(z) = sigmoid(z) (1 + z (1 - sigmoid(z))); z becomes its own gradient, in place.
      z[t] = s.grad_y[t] * (normed + *d.D * s.u[t]) * sigmoid * (S(1) + z[t] * (S(1) - sigmoid));
      d.grad_normed[t] = grad_normed;
      d.grad_u_skip[t] = grad_normed * *d.D;
      *d.grad_D += grad_normed * s.u[t];
      mean_product_[v * kChunk + t] = grad_normed * normed;
    }
  }

  // RMS norm: grad_scanned = inverse_rms (grad_normed - normed mean(grad_normed normed)), the mean being over the
  // group.
  void reverse_norm(int v, int length) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    const Vec<S>*inverse_rms = inverse_rms_ + v * kChunk, *mean_product = mean_product_ + v * kChunk;
    for (int t = 0; t < length; ++t) {
      s.grad_y[t] = inverse_rms[t] * (d.grad_normed[t] - d.scanned[t] * inverse_rms[t] * mean_product[t]);
    }
  }

  // From the gradients of delta and of delta u to those of dt and u, in place.
  void reverse_drive(int v, int length) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    Vec<S>*grad_u = s.grad_drive, *grad_dt = s.grad_delta_decay;
    for (int t = 0; t < length; ++t) {
      const Vec<S> grad_drive = s.grad_drive[t];
      grad_dt[t] = (grad_drive * s.u[t] + s.grad_delta_decay[t]) * d.grad_softplus[t];
      grad_u[t] = grad_drive * s.delta[t] + d.grad_u_skip[t];
      *d.grad_dt_bias += grad_dt[t];
    }
  }

  void end(const Block<S>& block, const Segment& segment, int v) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    const int64_t e = block.channel(v), row = segment.row;
    const int lanes = block.lanes(v);
    store_tile<S>(s.grad_state, row, e, 0, lanes, N(), gradients_.grad_initial_states);
    if (gradients_.total_delta.data) store_tile<S>(d.total_delta, row, e, 0, lanes, 1, gradients_.total_delta);
    if (!gradients_.grad_z.data) return;
    store_tile<S>(s.grad_A, row, e, 0, lanes, N(), gradients_.grad_A);
    store_tile<S>(d.grad_D, row, e, 0, lanes, 1, gradients_.grad_D);
    store_tile<S>(d.grad_dt_bias, row, e, 0, lanes, 1, gradients_.grad_dt_bias);
  }

  const DefocusInputs<S>& in_;
  const DefocusGradients<S>& gradients_;
  const ChannelBlocks& blocks_;
  int N_states_;
  int64_t vectors_, band_;
  int64_t current_ = 0;  // block of the band
  ReverseScratch<S, N_> scan_;
  Scratch<S> memory_;
  Vec<S>*inverse_rms_, *mean_product_;  // (vectors, kChunk), each holds its summands before the reduction; the mean is
                                        // over the group, of the normed result times its gradient
  Vec<S>* z_;                           // (vectors, kChunk); becomes its own gradient
  Vec<S>*tiles_, *persistent_;          // DefocusTiles of the current block; their persistent part, of all blocks
};

template <typename S>
void defocus_backward(const DefocusInputs<S>& in, const DefocusGradients<S>& gradients, const ChannelBlocks& blocks,
                      int64_t begin, int64_t end) {
  with_state_size(in.state, [&](auto N) {
    DefocusBackward<S, N.value> backward(in, gradients, blocks);
    for_each_band(blocks, in.segmentation, in.length, begin, end,
                  [&](int64_t block, int64_t count, const Segment& segment) { backward.run(block, count, segment); });
  });
}

}  // namespace
