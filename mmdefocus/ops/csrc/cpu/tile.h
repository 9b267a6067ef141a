// Tiles (time, lanes) in the type that is computed in, and the tensors of any floating type that they are read from and
// written to. A lane is a channel; lanes beyond those that exist are read as 0 and not written.
#pragma once

#include "cpu/sequence.h"
#include "cpu/simd.h"

namespace {

using namespace mmdefocus::cpu;

// Aligned memory of one call, handed out piece by piece.
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

// How a type is stored: its elements, a vector of them, and the conversions from and to the vectors of computation.
template <typename S>
struct Same {
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
    return __builtin_convertvector(v == v ? to_nearest_even : FloatBits{} + 0x7fc0, HalfBits);
  }
};

struct Float16 {
  typedef uint16_t Element;
  typedef HalfBits Stored;
  static Vec<float> widen(Stored stored) {
    const FloatBits bits = __builtin_convertvector(stored, FloatBits);
    // The exponent's bias grows from 15 to 127; the product also normalises what is subnormal in half precision.
    const Vec<float> magnitude = (Vec<float>)((bits & 0x7fff) << 13) * 0x1p112f;
    const FloatBits infinite_or_nan = magnitude >= 0x1p16f ? FloatBits{} + 0x7f800000 : FloatBits{};
    return (Vec<float>)((FloatBits)magnitude | infinite_or_nan | (bits & 0x8000) << 16);
  }
  static Stored narrow(Vec<float> v) {
    const FloatBits sign = (FloatBits)v & 0x80000000, bits = (FloatBits)v & 0x7fffffff;
    const Vec<float> magnitude = (Vec<float>)bits;
    const FloatBits normal = (bits + 0xfff + ((bits >> 13) & 1) - (112u << 23)) >> 13;
    // The last bit of 0.5f is that of the half's subnormal numbers: the sum rounds to it.
    const FloatBits subnormal = (FloatBits)(magnitude + 0.5f) - (FloatBits)(Vec<float>{} + 0.5f);
    FloatBits half = magnitude < 0x1p-14f ? subnormal : normal;
    half = magnitude >= 65520.0f ? FloatBits{} + 0x7c00 : half;
    half = v == v ? half : FloatBits{} + 0x7e00;
    return __builtin_convertvector(half | sign >> 16, HalfBits);
  }
};

// `ahead` is the number of steps to the tile that is wanted next, which is fetched into the cache.
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
  typename Type::Element elements[W] = {};
  for (int t = 0; t < length; ++t) {
    for (int i = 0; i < lanes; ++i) elements[i] = source[i * channel_stride + t * time_stride];
    std::memcpy(&stored, elements, sizeof(stored));
    tile[t] = Type::widen(stored);
  }
}

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

// Runs `visit` with the storage that `type` names; float64 is computed in float64, all else in float32.
template <typename S, typename Visit>
inline void with_storage(ElementType type, const Visit& visit) {
  if constexpr (std::is_same_v<S, double>) {
    visit(Same<double>{});
  } else if (type == ElementType::kHalf) {
    visit(Float16{});
  } else if (type == ElementType::kBFloat16) {
    visit(BFloat16{});
  } else {
    visit(Same<float>{});
  }
}

// The steps t .. t + length at the channels e .. e + lanes of image b.
template <typename S>
inline void load_tile(const Input& x, int64_t b, int64_t e, int64_t t, int lanes, int length, Vec<S>* tile,
                      int ahead = 0) {
  with_storage<S>(x.type, [&](auto storage) {
    using Type = decltype(storage);
    const auto* source = reinterpret_cast<const typename Type::Element*>(x.at(b, e, t));
    load_tile_as<S, Type>(source, x.channel_stride, x.time_stride, lanes, length, ahead, tile);
  });
}

template <typename S>
inline void store_tile(const Vec<S>* tile, int64_t b, int64_t e, int64_t t, int lanes, int length, const Output& x) {
  with_storage<S>(x.type, [&](auto storage) {
    using Type = decltype(storage);
    auto* target = reinterpret_cast<typename Type::Element*>(x.at(b, e, t));
    store_tile_as<S, Type>(tile, x.channel_stride, x.time_stride, lanes, length, target);
  });
}

// Row n of a contiguous (N, E) matrix at the channels e .. e + lanes.
template <typename S>
inline void load_rows(const S* matrix, int64_t channels, int64_t rows_count, int64_t e, int lanes, Vec<S>* rows) {
  load_tile_as<S, Same<S>>(matrix + e, 1, channels, lanes, static_cast<int>(rows_count), 0, rows);
}

template <typename S>
inline void store_rows(const Vec<S>* rows, int64_t channels, int64_t rows_count, int64_t e, int lanes, S* matrix) {
  store_tile_as<S, Same<S>>(rows, 1, channels, lanes, static_cast<int>(rows_count), matrix + e);
}

}  // namespace
