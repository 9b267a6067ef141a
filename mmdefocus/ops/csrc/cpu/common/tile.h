// Tiles of vectors in the compute type, and their conversion from and to tensors of any floating type.
// Shapes: a tile is (time, lanes), and a lane is a channel. Lanes past the last channel are read as 0 and not written.
#pragma once

#include "cpu/common/strided_view.h"
#include "cpu/common/simd.h"

namespace {

using namespace mmdefocus::cpu;

// Working memory of one thread: one aligned allocation per call, handed out piece by piece.
template <typename S>
class Scratch {
 public:
  explicit Scratch(int64_t vectors) {
    void* pointer = nullptr;
    if (posix_memalign(&pointer, sizeof(Vec<S>), vectors * sizeof(Vec<S>)) != 0) throw std::bad_alloc();
    memory_ = next_ = static_cast<Vec<S>*>(pointer);
  }
  ~Scratch() { std::free(memory_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  Vec<S>* take(int64_t vectors) {
    Vec<S>* taken = next_;
    next_ += vectors;
    return taken;
  }

 private:
  Vec<S>*memory_, *next_;
};

// Storage types: the element in memory, a vector of such elements, and the conversions from and to the compute type.
// Half types convert by integer operations: the conversion instructions belong to extensions that AVX2 and AVX-512F do
// not imply.
template <typename S>
struct Unconverted {
  typedef S Element;
  typedef Vec<S> Stored;
  static Vec<S> widen(Stored stored) { return stored; }
  static Stored narrow(Vec<S> v) { return v; }
};

typedef uint16_t HalfBits __attribute__((vector_size(MMDEFOCUS_VECTOR_BYTES / 2)));
typedef uint32_t FloatBits __attribute__((vector_size(MMDEFOCUS_VECTOR_BYTES)));

struct BFloat16 {
  typedef uint16_t Element;
  typedef HalfBits Stored;
  static Vec<float> widen(Stored stored) { return (Vec<float>)(__builtin_convertvector(stored, FloatBits) << 16); }
  static Stored narrow(Vec<float> v) {
    const FloatBits bits = (FloatBits)v;
    const FloatBits to_nearest_even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    // Rounding could carry the bits of a NaN into those of another number.
    return __builtin_convertvector(v == v ? to_nearest_even : FloatBits{} + 0x7fc0, HalfBits);
  }
};

struct Float16 {
  typedef uint16_t Element;
  typedef HalfBits Stored;
  static Vec<float> widen(Stored stored) {
    const FloatBits bits = __builtin_convertvector(stored, FloatBits);
    // Multiplying by 2^(127 - 15) changes the bias of the exponent and normalises the subnormal numbers of float16.
    const Vec<float> magnitude = (Vec<float>)((bits & 0x7fff) << 13) * 0x1p112f;
    const FloatBits infinite_or_nan = magnitude >= 0x1p16f ? FloatBits{} + 0x7f800000 : FloatBits{};
    return (Vec<float>)((FloatBits)magnitude | infinite_or_nan | (bits & 0x8000) << 16);
  }
  static Stored narrow(Vec<float> v) {
    const FloatBits sign = (FloatBits)v & 0x80000000, bits = (FloatBits)v & 0x7fffffff;
    const Vec<float> magnitude = (Vec<float>)bits;
    const FloatBits normal = (bits + 0xfff + ((bits >> 13) & 1) - (112u << 23)) >> 13;
    // The last bit of 0.5f has the value of the smallest subnormal float16, so adding 0.5f rounds to a multiple of it.
    const FloatBits subnormal = (FloatBits)(magnitude + 0.5f) - (FloatBits)(Vec<float>{} + 0.5f);
    FloatBits half = magnitude < 0x1p-14f ? subnormal : normal;
    // 65520 lies midway between the largest float16 and the next power of 2, and rounds to infinity.
    half = magnitude >= 65520.0f ? FloatBits{} + 0x7c00 : half;
    half = v == v ? half : FloatBits{} + 0x7e00;
    return __builtin_convertvector(half | sign >> 16, HalfBits);
  }
};

// Loads `length` steps. `ahead` is the distance in steps to the tile that is needed next, which is prefetched: steps
// lie a whole row of channels apart in channels-last tensors, a stride that hardware prefetchers do not follow across
// pages.
template <typename S, typename Type>
inline void load_tile_as(const typename Type::Element* source, int64_t channel_stride, int64_t time_stride, int lanes,
                         int length, int ahead, Vec<S>* tile) {
  constexpr int W = kLanes<S>;
  typename Type::Stored stored;
  if (channel_stride == 1 && lanes == W) {
    for (int t = 0; t < length; ++t) {
      std::memcpy(&stored, source + t * time_stride, sizeof(stored));
      tile[t] = Type::widen(stored);
      if (ahead) __builtin_prefetch(source + (t + ahead) * time_stride, 0, 2);
    }
    return;
  }
  // Channels that are not neighbours in memory, and a last vector that is not full, go element by element.
  typename Type::Element elements[W] = {};
  for (int t = 0; t < length; ++t) {
    for (int i = 0; i < lanes; ++i) elements[i] = source[i * channel_stride + t * time_stride];
    std::memcpy(&stored, elements, sizeof(stored));
    tile[t] = Type::widen(stored);
  }
}

// The inverse of load_tile_as.
template <typename S, typename Type>
inline void store_tile_as(const Vec<S>* tile, int64_t channel_stride, int64_t time_stride, int lanes, int length,
                          typename Type::Element* target) {
  constexpr int W = kLanes<S>;
  typename Type::Stored stored;
  if (channel_stride == 1 && lanes == W) {
    for (int t = 0; t < length; ++t) {
      stored = Type::narrow(tile[t]);
      std::memcpy(target + t * time_stride, &stored, sizeof(stored));
    }
    return;
  }
  typename Type::Element elements[W];
  for (int t = 0; t < length; ++t) {
    stored = Type::narrow(tile[t]);
    std::memcpy(elements, &stored, sizeof(stored));
    for (int i = 0; i < lanes; ++i) target[i * channel_stride + t * time_stride] = elements[i];
  }
}

// Calls `visit` with the storage type of `type`. The compute type S is double for float64 and float for all others.
template <typename S, typename Visit>
inline void with_storage(ElementType type, const Visit& visit) {
  if constexpr (std::is_same_v<S, double>) {
    visit(Unconverted<double>{});
  } else if (type == ElementType::kHalf) {
    visit(Float16{});
  } else if (type == ElementType::kBFloat16) {
    visit(BFloat16{});
  } else {
    visit(Unconverted<float>{});
  }
}

// Loads the steps t .. t + length of the channels e .. e + lanes of sequence b.
template <typename S>
inline void load_tile(const InputView& x, int64_t b, int64_t e, int64_t t, int lanes, int length, Vec<S>* tile,
                      int ahead = 0) {
  with_storage<S>(x.type, [&](auto storage) {
    using Type = decltype(storage);
    const auto* source = reinterpret_cast<const typename Type::Element*>(x.at(b, e, t));
    load_tile_as<S, Type>(source, x.channel_stride, x.time_stride, lanes, length, ahead, tile);
  });
}

template <typename S>
inline void store_tile(const Vec<S>* tile, int64_t b, int64_t e, int64_t t, int lanes, int length,
                       const OutputView& x) {
  with_storage<S>(x.type, [&](auto storage) {
    using Type = decltype(storage);
    auto* target = reinterpret_cast<typename Type::Element*>(x.at(b, e, t));
    store_tile_as<S, Type>(tile, x.channel_stride, x.time_stride, lanes, length, target);
  });
}

// Loads the channels e .. e + lanes of the rows of a contiguous (num_rows, E) matrix.
template <typename S>
inline void load_rows(const S* matrix, int64_t channels, int64_t num_rows, int64_t e, int lanes, Vec<S>* rows) {
  load_tile_as<S, Unconverted<S>>(matrix + e, 1, channels, lanes, static_cast<int>(num_rows), 0, rows);
}

template <typename S>
inline void store_rows(const Vec<S>* rows, int64_t channels, int64_t num_rows, int64_t e, int lanes, S* matrix) {
  store_tile_as<S, Unconverted<S>>(rows, 1, channels, lanes, static_cast<int>(num_rows), matrix + e);
}

}  // namespace
