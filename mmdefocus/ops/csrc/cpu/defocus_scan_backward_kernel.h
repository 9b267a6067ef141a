// The gradient of the fused De-focus scan for the instruction set of the including file; see defocus_scan_kernel.h.
#pragma once

#include "cpu/defocus_scan_kernel.h"

namespace {

// One vector of channels over one chunk: what joins the tiles of the scan.
template <typename S>
struct DefocusTiles {
  Vec<S>*scanned, *slope;        // (length): result of the scan; derivative of delta by dt
  Vec<S>*through_norm, *direct;  // (length): gradient of the normed result; gradient of u through D
  Vec<S>*D, *dt_bias;            // (1), as all that follows; kept from chunk to chunk
  Vec<S>*dD, *ddt_bias, *total_delta;

  static constexpr int64_t kSize = 4 * kChunk, kKeptSize = 5;

  DefocusTiles(Vec<S>* memory, Vec<S>* kept) {
    for (Vec<S>** tile : {&scanned, &slope, &through_norm, &direct}) *tile = std::exchange(memory, memory + kChunk);
    for (Vec<S>** row : {&D, &dt_bias, &dD, &ddt_bias, &total_delta}) *row = kept++;
  }
};

// Work of one thread, band by band, and within it chunk by chunk from the end of the segment to its start.
template <typename S, int N_>
class DefocusBackward {
 public:
  DefocusBackward(const DefocusInputs<S>& in, const DefocusGradients<S>& grad, const Blocks& blocks)
      : in_(in), grad_(grad), blocks_(blocks), N_states_(N_ ? N_ : static_cast<int>(in.state)),
        vectors_(vectors_per_block<S>(blocks)), band_(std::min(kBand, blocks.per_group)),
        scan_(N_states_, blocks.channels_per_block, band_),
        memory_(vectors_ * (2 * kChunk + DefocusTiles<S>::kSize + band_ * DefocusTiles<S>::kKeptSize) + kChunk) {
    factor_ = memory_.take(vectors_ * kChunk);
    projected_ = memory_.take(vectors_ * kChunk);
    tile_ = memory_.take(kChunk);
    tiles_ = memory_.take(vectors_ * DefocusTiles<S>::kSize);
    kept_ = memory_.take(0);
  }

  void run(int64_t first_block, int64_t count, const Segment& segment) {
    const auto for_each_vector = [&](const auto& visit) {
      for (current_ = 0; current_ < count; ++current_) {
        const Block<S> block(blocks_, first_block + current_);
        for (int v = 0; v < block.vectors; ++v) visit(block, v);
      }
    };
    for_each_vector([&](const Block<S>& block, int v) { begin(block, segment, v); });
    for (int64_t start = (chunks(segment.end) - 1) * kChunk; start >= segment.begin; start -= kChunk) {
      const int length = static_cast<int>(std::min<int64_t>(kChunk, segment.end - start));
      for (current_ = 0; current_ < count; ++current_) {
        reverse(Block<S>(blocks_, first_block + current_), start, length);
      }
    }
    for_each_vector([&](const Block<S>& block, int v) { end(block, segment, v); });
  }

 private:
  int N() const { return N_ ? N_ : N_states_; }

  // Of the current block.
  ReverseTiles<S> scan_tiles(int v) const { return scan_.vector(v, current_); }
  DefocusTiles<S> tiles(int v) const {
    return {tiles_ + v * DefocusTiles<S>::kSize, kept_ + (current_ * vectors_ + v) * DefocusTiles<S>::kKeptSize};
  }

  void reverse(const Block<S>& block, int64_t start, int length) {
    const int64_t L = in_.length;
    const S* B = in_.B + (block.b * L + start) * N();
    const S* C = in_.C + (block.b * L + start) * N();
    const int64_t partial = ((block.b * blocks_.per_group + block.index_in_group) * L + start) * N();
    for (int v = 0; v < block.vectors; ++v) recompute(block, v, start, length, B, C);
    reduce_groups<S>(factor_, block, in_.group_size, length, NormFactor<S>{in_.group_size, in_.eps});
    for (int v = 0; v < block.vectors; ++v) reverse_gate(block, v, start, length);
    reduce_groups<S>(projected_, block, in_.group_size, length, [&](S sum) { return sum / in_.group_size; });
    for (int v = 0; v < block.vectors; ++v) reverse_norm(v, length);
    reverse_chunk<S, N_, true, true>(scan_, current_, block.vectors, N(), length, B, C, grad_.B + partial,
                                     grad_.C + partial);
    if (!grad_.z.data) return;
    for (int v = 0; v < block.vectors; ++v) reverse_steps(block, v, start, length);
  }

  void begin(const Block<S>& block, const Segment& segment, int v) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    const int64_t e = block.channel(v);
    const int lanes = block.lanes(v);
    load_decay_rates<S>(in_.A, e, lanes, N(), s.A);
    load_tile<S>(in_.D, 0, e, 0, lanes, 1, d.D);
    load_tile<S>(in_.dt_bias, 0, e, 0, lanes, 1, d.dt_bias);
    *d.dD = *d.ddt_bias = *d.total_delta = Vec<S>{};
    std::fill_n(s.dA, N(), Vec<S>{});
    std::fill_n(s.carry, N(), Vec<S>{});
    if (grad_.end_states.data) load_tile<S>(grad_.end_states, segment.row, e, 0, lanes, N(), s.carry);
  }

  void recompute(const Block<S>& block, int v, int64_t start, int length, const S* B, const S* C) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    const int64_t e = block.channel(v), E = blocks_.channels_per_group;
    const int lanes = block.lanes(v);
    load_tile<S>(in_.u, block.b, e, start, lanes, length, s.u, -kChunk);
    load_tile<S>(in_.dt, block.b, e, start, lanes, length, s.delta, -kChunk);
    for (int t = 0; t < length; ++t) {
      s.delta[t] = vector_softplus<S>(s.delta[t] + *d.dt_bias, &d.slope[t]) * in_.inverse_delta_scale;
      d.slope[t] *= in_.inverse_delta_scale;
      *d.total_delta += s.delta[t];
    }
    const S* states = grad_.chunk_states + chunk_offset(block.b, start, in_.length, N(), E);
    load_rows<S>(states, E, N(), e, lanes, s.before);
    record_chunk<S, N_, true>(s, N(), length, Projection<S, true>{B, nullptr}, Projection<S, true>{C, nullptr},
                              d.scanned);
    for (int t = 0; t < length; ++t) factor_[v * kChunk + t] = d.scanned[t] * d.scanned[t];
  }

  void reverse_gate(const Block<S>& block, int v, int64_t start, int length) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    const int64_t e = block.channel(v);
    const int lanes = block.lanes(v);
    const Vec<S>* factor = factor_ + v * kChunk;
    Vec<S>* z = tile_;
    load_tile<S>(in_.z, block.b, e, start, lanes, length, z, -kChunk);
    load_tile<S>(grad_.y, block.b, e, start, lanes, length, s.dy, -kChunk);
    for (int t = 0; t < length; ++t) {
      const Vec<S> sigmoid = vector_sigmoid<S>(z[t]), normed = d.scanned[t] * factor[t];
      const Vec<S> through_norm = s.dy[t] * z[t] * sigmoid;
      z[t] = s.dy[t] * (normed + *d.D * s.u[t]) * sigmoid * (S(1) + z[t] * (S(1) - sigmoid));
      d.through_norm[t] = through_norm;
      d.direct[t] = through_norm * *d.D;
      *d.dD += through_norm * s.u[t];
      projected_[v * kChunk + t] = through_norm * normed;
    }
    if (grad_.z.data) store_tile<S>(z, block.b, e, start, lanes, length, grad_.z);
  }

  void reverse_norm(int v, int length) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    const Vec<S>*factor = factor_ + v * kChunk, *projected = projected_ + v * kChunk;
    for (int t = 0; t < length; ++t) {
      s.dy[t] = factor[t] * (d.through_norm[t] - d.scanned[t] * factor[t] * projected[t]);
    }
  }

  void reverse_steps(const Block<S>& block, int v, int64_t start, int length) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    Vec<S>*du = s.through_input, *ddt = s.through_decay;
    for (int t = 0; t < length; ++t) {
      const Vec<S> through_input = s.through_input[t];
      ddt[t] = (through_input * s.u[t] + s.through_decay[t]) * d.slope[t];
      du[t] = through_input * s.delta[t] + d.direct[t];
      *d.ddt_bias += ddt[t];
    }
    store_tile<S>(du, block.b, block.channel(v), start, block.lanes(v), length, grad_.u);
    store_tile<S>(ddt, block.b, block.channel(v), start, block.lanes(v), length, grad_.dt);
  }

  void end(const Block<S>& block, const Segment& segment, int v) {
    const ReverseTiles<S> s = scan_tiles(v);
    const DefocusTiles<S> d = tiles(v);
    const int64_t e = block.channel(v), row = segment.row;
    const int lanes = block.lanes(v);
    if (grad_.start_states.data) store_tile<S>(s.carry, row, e, 0, lanes, N(), grad_.start_states);
    if (grad_.total_delta.data) store_tile<S>(d.total_delta, row, e, 0, lanes, 1, grad_.total_delta);
    if (!grad_.z.data) return;
    store_tile<S>(s.dA, row, e, 0, lanes, N(), grad_.A);
    store_tile<S>(d.dD, row, e, 0, lanes, 1, grad_.D);
    store_tile<S>(d.ddt_bias, row, e, 0, lanes, 1, grad_.dt_bias);
  }

  const DefocusInputs<S>& in_;
  const DefocusGradients<S>& grad_;
  const Blocks& blocks_;
  int N_states_;
  int64_t vectors_, band_;
  int64_t current_ = 0;  // the block of the band
  ReverseScratch<S, N_> scan_;
  Scratch<S> memory_;
  Vec<S>*factor_, *projected_;  // (vectors, kChunk): factor of the norm; mean over the group of the normed result
                                // times its gradient
  Vec<S>* tile_;                // (kChunk)
  Vec<S>*tiles_, *kept_;        // (vectors, DefocusTiles), and what is kept of them, of all blocks of a band
};

template <typename S>
void defocus_backward(const DefocusInputs<S>& in, const DefocusGradients<S>& grad, const Blocks& blocks, int64_t begin,
                      int64_t end) {
  with_state_size(in.state, [&](auto N) {
    DefocusBackward<S, N.value> backward(in, grad, blocks);
    for_each_band(blocks, in.segments, in.length, begin, end,
                  [&](int64_t block, int64_t count, const Segment& segment) { backward.run(block, count, segment); });
  });
}

}  // namespace
