// Arguments of band-pass attention and retention on CPU, shared by the host functions and the kernels of every
// instruction set.
// Shapes: B batch, H heads, L tokens, G tiles of kTile tokens, d channels of a head, V channels of a value; D and W are
// d and V rounded up to a multiple of kPadding.
#pragma once

#include "cpu/common/strided_view.h"

namespace mmdefocus::cpu {

// Tokens of a tile: one tile of logits takes as long as about 30 passes over a tile of tokens, and all tiles in use at
// a time fit in an L1 cache of 48 KiB.
constexpr int kTile = 64;

// The widest vector has 16 numbers; rows of a multiple of it are whole vectors of every instruction set.
constexpr int64_t kPadding = 16;

// Above this product of lambda and kTile, exp(lambda kTile) might overflow in a product. The logits of a tile of
// queries with the keys of the same tile are computed directly for such channels.
constexpr int kMaxExponent = 60;

struct BandpassSizes {
  int64_t batch, heads, length, tiles, channels, values, padded_channels, padded_values;
};

// A (B, H, L, d) tensor of any strides, in elements.
template <typename Byte>
struct HeadsView {
  Byte* data;
  ElementType type;
  int64_t batch_stride, head_stride, time_stride, channel_stride;

  // Always inlined, because this header is compiled once per instruction set and the linker must not merge the copies.
  __attribute__((always_inline)) Byte* at(int64_t b, int64_t h, int64_t t) const {
    return data + (b * batch_stride + h * head_stride + t * time_stride) * element_bytes(type);
  }
};

using HeadsInput = HeadsView<const char>;
using HeadsOutput = HeadsView<char>;

// What depends on the parameters only; the channels of a pair have equal entries, and padding channels have none.
template <typename S>
struct BandpassTables {
  S* rates;   // (H, D): lambda
  S* decays;  // (H, kTile + 1, D): exp(-lambda n) for n = 0 ... kTile
  S* phases;  // (H, L, D): cosine (even channels) and sine (odd channels) of theta times the position; may be null
};

template <typename S>
struct BandpassInputs {
  BandpassSizes sizes;
  HeadsInput q, k, v;
  const S *decay, *freq;   // contiguous (H, d / 2), or null for 0
  int64_t first_position;  // of the first token
  S scale;
  bool causal;
  BandpassTables<S> tables;
};

template <typename S>
struct AttentionOutputs {
  HeadsOutput y;  // (B, H, L, V)
  S* lse;         // (B, H, L): logarithm of the sum of the exponentials of the logits
};

// Partial sums have one writer each and are added in a fixed order; M groups of tiles of queries.
template <typename S>
struct AttentionGradients {
  HeadsInput y, grad_y;  // (B, H, L, V)
  const S* lse;          // saved by the forward pass
  int64_t groups;
  HeadsOutput q, k, v;
  S *keys_before, *keys_after;  // (M, B, H, G kTile, D), of scaled keys (PackedKeys); the latter null if causal
  S* values;                    // (M, B, H, G kTile, W)
  S* direct_keys;               // (B, H, G kTile, D), of rotated keys, from direct channels; null if there are none
  S* self;                      // (B, H, L), of the logit of a token with itself
  S* rates;                     // (B, H, G, 2, D), of queries and of keys
  S* phases;                    // (B, H, G, 2, D), likewise; see store_gradients
};

template <typename S>
struct RetentionOutputs {
  HeadsOutput y;           // (B, H, L, V)
  const S* initial_state;  // contiguous (B, H, V, d), decayed to the first token; null for 0
  S* states;      // (B, H, G, W, D): the state before every tile, which the backward pass needs; null if not wanted
  S* last_state;  // contiguous (B, H, V, d); null if not wanted
  int64_t block_rows;  // a multiple of kPadding: threads may share the W rows of the values of a head
};

template <typename S>
struct RetentionGradients {
  HeadsInput grad_y;      // (B, H, L, V)
  const S* last_state;    // contiguous (B, H, V, d), of the last state; null for 0
  const S* saved_states;  // saved by the forward pass
  S* states;              // (B, H, G, W, D)
  S* initial_state;       // contiguous (B, H, V, d), of the initial state; null if there is none
  HeadsOutput q, k, v;
  S* self;            // (B, H, L), as in attention
  S* state_rates;     // (B, H, W, D), from the decay of states
  S *rates, *phases;  // as in attention
};

// Work on the items begin ... end: tiles of heads, of one sequence in `tables`; where a kernel takes other items, its
// definition says so.
template <typename S>
struct BandpassKernels {
  void (*tables)(const BandpassInputs<S>&, int64_t begin, int64_t end);
  void (*attention_forward)(const BandpassInputs<S>&, const AttentionOutputs<S>&, int64_t begin, int64_t end);
  void (*attention_backward)(const BandpassInputs<S>&, const AttentionGradients<S>&, int64_t begin, int64_t end);
  void (*attention_backward_keys)(const BandpassInputs<S>&, const AttentionGradients<S>&, int64_t begin, int64_t end);
  void (*retention_forward)(const BandpassInputs<S>&, const RetentionOutputs<S>&, int64_t begin, int64_t end);
  void (*retention_local_gradients)(const BandpassInputs<S>&, const RetentionGradients<S>&, int64_t begin, int64_t end);
  void (*retention_pass_gradients)(const BandpassInputs<S>&, const RetentionGradients<S>&, int64_t begin, int64_t end);
  void (*retention_backward)(const BandpassInputs<S>&, const RetentionGradients<S>&, int64_t begin, int64_t end);
};

}  // namespace mmdefocus::cpu
