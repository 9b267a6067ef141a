// The forward pass of the fused De-focus scan for the instruction set of the including file.
//
//   delta_t = softplus(dt_t + dt_bias) / delta_scale,   scanned_t = selective scan of u_t with delta_t, A, B_t, C_t,
//   normed_t = scanned_t / sqrt(mean of scanned_t^2 over the group + eps),   y_t = (normed_t + D u_t) silu(z_t)
//
// Everything is computed chunk by chunk while the chunk is in cache: u, dt and z are read once and y is written once.
// Shapes: B batch, E channels, L time, N state, M segments per sequence.
#pragma once

#include "cpu/common/scan_chunk.h"
#include "cpu/defocus_scan/arguments.h"
#include "cpu/defocus_scan/group_norm.h"

namespace {

// Steps begin .. end of a sequence, and its row in tensors (B M, …).
struct Segment {
  int64_t row, begin, end;

  Segment(const Segmentation& segmentation, int64_t b, int64_t item, int64_t L)
      : row(b * segmentation.count + item % segmentation.count), begin(item % segmentation.count * segmentation.steps),
        end(std::min(begin + segmentation.steps, L)) {}
};

// Blocks of one sequence that a thread takes through time together, chunk by chunk. In channels-last tensors they lie
// side by side in the same pages: block after block would walk through all pages of the sequence once per block, with
// a TLB miss at each.
constexpr int64_t kBandBlocks = 16;

// Calls `run` for the bands of the items begin .. end, with their first block, number of blocks and segment.
template <typename Run>
inline void for_each_band(const ChannelBlocks& blocks, const Segmentation& segmentation, int64_t L, int64_t begin,
                          int64_t end, const Run& run) {
  while (begin < end) {
    const int64_t block = begin / segmentation.count, b = block / blocks.per_sequence;
    const int64_t count =
        segmentation.count > 1 ? 1 : std::min({kBandBlocks, end - begin, (b + 1) * blocks.per_sequence - block});
    run(block, count, Segment(segmentation, b, begin, L));
    begin += count;
  }
}

// The block and the chunk that a thread takes next, which may not exist.
template <typename S>
struct NextVisit {
  Block<S> block;
  int64_t start;
  bool exists;

  // Appends the steps of vector v of the block.
  template <typename Byte>
  void add(const StridedView<Byte>& x, int v, NextSteps& steps) const {
    if (exists) steps.add(x, block.b, block.channel(v), start);
  }
};

// Work of one thread, band by band.
template <typename S, int N_>
class DefocusForward {
 public:
  DefocusForward(const DefocusInputs<S>& in, const DefocusOutputs<S>& out, const ChannelBlocks& blocks)
      : in_(in), out_(out), blocks_(blocks), N_states_(N_ ? N_ : static_cast<int>(in.state)),
        vectors_(vectors_per_block<S>(blocks)),
        memory_(vectors_ * 4 * kChunk + std::min(kBandBlocks, blocks.per_sequence) * vectors_ * persistent_size()) {
    u_ = memory_.take(vectors_ * kChunk);
    scanned_ = memory_.take(vectors_ * kChunk);
    inverse_rms_ = memory_.take(vectors_ * kChunk);
    tile_ = memory_.take(vectors_ * kChunk);
    persistent_ = memory_.take(0);
  }

  void run(int64_t first_block, int64_t count, const Segment& segment) {
    const auto for_each_block = [&](const auto& visit) {
      for (int64_t i = 0; i < count; ++i) {
        select(i);
        visit(Block<S>(blocks_, first_block + i));
      }
    };
    for_each_block([&](const Block<S>& block) { begin(block, segment); });
    for (int64_t start = segment.begin; start < segment.end; start += kChunk) {
      const int length = static_cast<int>(std::min<int64_t>(kChunk, segment.end - start));
      for (int64_t i = 0; i < count; ++i) {
        select(i);
        const bool is_last = i + 1 == count;
        const Block<S> next(blocks_, first_block + (is_last ? 0 : i + 1));
        const int64_t next_start = is_last ? start + kChunk : start;
        advance(Block<S>(blocks_, first_block + i), start, length, {next, next_start, next_start < segment.end});
      }
    }
    for_each_block([&](const Block<S>& block) { end(block, segment); });
  }

 private:
  int N() const { return N_ ? N_ : N_states_; }
  int64_t persistent_size() const { return 2 * N_states_ + 3; }

  // Points A_ .. total_delta_ at block i of the band.
  void select(int64_t i) {
    A_ = persistent_ + i * vectors_ * persistent_size();
    state_ = A_ + vectors_ * N();
    D_ = state_ + vectors_ * N();
    dt_bias_ = D_ + vectors_;
    total_delta_ = dt_bias_ + vectors_;
  }

  void begin(const Block<S>& block, const Segment& segment) {
    for (int v = 0; v < block.vectors; ++v) {
      const int64_t e = block.channel(v);
      const int lanes = block.lanes(v);
      Vec<S>* state = state_ + v * N();
      load_decay_rates<S>(in_.A, e, lanes, N(), A_ + v * N());
      load_tile<S>(in_.D, 0, e, 0, lanes, 1, D_ + v);
      load_tile<S>(in_.dt_bias, 0, e, 0, lanes, 1, dt_bias_ + v);
      total_delta_[v] = Vec<S>{};
      std::fill_n(state, N(), Vec<S>{});
      if (in_.initial_states.data) load_tile<S>(in_.initial_states, segment.row, e, 0, lanes, N(), state);
    }
  }

  void advance(const Block<S>& block, int64_t start, int length, const NextVisit<S>& next) {
    load_block<S>(in_.u, block, start, length, kChunk, 0, u_);
    load_block<S>(in_.dt, block, start, length, kChunk, 0, tile_);
    for (int v = 0; v < block.vectors; ++v) {
      NextSteps steps;
      for (const InputView& x : {in_.u, in_.dt, in_.z}) next.add(x, v, steps);
      if (out_.y.data) next.add(out_.y, v, steps);
      scan(block, v, start, length, steps);
    }
    if (!out_.y.data) return;
    reduce_groups<S>(inverse_rms_, block, in_.group_size, length, InverseRms<S>{in_.group_size, in_.eps});
    load_block<S>(in_.z, block, start, length, kChunk, 0, tile_);
    for (int v = 0; v < block.vectors; ++v) norm_and_gate(v, length);
    store_block<S>(tile_, block, start, length, kChunk, out_.y);
  }

  void end(const Block<S>& block, const Segment& segment) {
    for (int v = 0; v < block.vectors; ++v) {
      const int64_t e = block.channel(v);
      const int lanes = block.lanes(v);
      store_tile<S>(state_ + v * N(), segment.row, e, 0, lanes, N(), out_.final_states);
      if (out_.total_delta.data) store_tile<S>(total_delta_ + v, segment.row, e, 0, lanes, 1, out_.total_delta);
    }
  }

  void scan(const Block<S>& block, int v, int64_t start, int length, const NextSteps& next) {
    const int64_t e = block.channel(v), L = in_.length, E = blocks_.channels;
    const int lanes = block.lanes(v);
    Vec<S>*u = u_ + v * kChunk, *scanned = scanned_ + v * kChunk, *squares = inverse_rms_ + v * kChunk;
    Vec<S>* delta = tile_ + v * kChunk;
    for (int t = 0; t < length; ++t) {
      delta[t] = vector_softplus<S>(delta[t] + dt_bias_[v]) * in_.inverse_delta_scale;
      total_delta_[v] += delta[t];
    }
    if (out_.y.data) {
      store_rows<S>(state_ + v * N(), E, N(), e, lanes, out_.chunk_states + chunk_offset(block.b, start, L, N(), E));
    }
    const int64_t row = (block.b * L + start) * N();
    scan_chunk<S, N_>(N(), length, u, delta, A_ + v * N(), in_.B + row, in_.C + row, next, state_ + v * N(), scanned);
    for (int t = 0; t < length; ++t) squares[t] = scanned[t] * scanned[t];
  }

  void norm_and_gate(int v, int length) {
    const Vec<S>*u = u_ + v * kChunk, *scanned = scanned_ + v * kChunk, *inverse_rms = inverse_rms_ + v * kChunk;
    Vec<S>* z = tile_ + v * kChunk;
    for (int t = 0; t < length; ++t) {
      z[t] *= vector_sigmoid<S>(z[t]) * (scanned[t] * inverse_rms[t] + D_[v] * u[t]);
    }
  }

  const DefocusInputs<S>& in_;
  const DefocusOutputs<S>& out_;
  const ChannelBlocks& blocks_;
  int N_states_;
  int64_t vectors_;
  Scratch<S> memory_;
  Vec<S>*u_, *scanned_, *inverse_rms_;  // (vectors, kChunk); inverse_rms_ holds the squares before the reduction
  Vec<S>* tile_;                        // (vectors, kChunk)
  Vec<S>* persistent_;                  // all that follows, of every block of a band
  Vec<S>*A_, *state_;                   // (vectors, N)
  Vec<S>*D_, *dt_bias_, *total_delta_;  // (vectors)
};

template <typename S>
void defocus_forward(const DefocusInputs<S>& in, const DefocusOutputs<S>& out, const ChannelBlocks& blocks,
                     int64_t begin, int64_t end) {
  with_state_size(in.state, [&](auto N) {
    DefocusForward<S, N.value> forward(in, out, blocks);
    for_each_band(blocks, in.segmentation, in.length, begin, end,
                  [&](int64_t block, int64_t count, const Segment& segment) { forward.run(block, count, segment); });
  });
}

}  // namespace
