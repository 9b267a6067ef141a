// Multi-scale deformable sampling on CPU: every query adds up weighted bilinear samples of the feature maps.
// Shapes: B batch, V positions of all maps, H heads, C channels of a head, Q queries, L maps, P samples per map.
#include <ATen/Functions.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "cpu/common/tensor_arguments.h"

namespace mmdefocus::cpu {

namespace {

using at::Tensor;
constexpr const char* kOp = "mmdefocus::deformable_sampling";
constexpr int kCorners = 4;

struct Sizes {
  int64_t batch, positions, heads, channels, queries, maps, points;

  int64_t value(int64_t b, int64_t position, int64_t h) const {
    return ((b * positions + position) * heads + h) * channels;
  }
  int64_t output(int64_t b, int64_t q, int64_t h) const { return ((b * queries + q) * heads + h) * channels; }
  int64_t sample(int64_t b, int64_t q, int64_t h, int64_t map, int64_t point) const {
    return (((b * queries + q) * heads + h) * maps + map) * points + point;
  }
};

// The four positions around a sample: top left, top right, bottom left, bottom right; -1 outside the map.
template <typename S>
struct Corners {
  int64_t position[kCorners];
  S x, y;  // distance to the left and to the upper positions, from 0 to 1
  int64_t width, height;

  S weight(int corner) const { return (corner % 2 ? x : 1 - x) * (corner / 2 ? y : 1 - y); }
};

// Returns false if no position is inside the map. Coordinates that are NaN have corners, of NaN weight and no position.
template <typename S>
bool find_corners(const S* location, const int64_t* shape, int64_t start, Corners<S>& corners) {
  const int64_t height = shape[0], width = shape[1];
  const S x = location[0] * width - S(0.5), y = location[1] * height - S(0.5);
  if (x <= -1 || x >= width || y <= -1 || y >= height) return false;
  const bool is_number = !std::isnan(x) && !std::isnan(y);
  const S left = std::floor(x), top = std::floor(y);
  corners.x = x - left;
  corners.y = y - top;
  corners.width = width;
  corners.height = height;
  for (int corner = 0; corner < kCorners; ++corner) {
    const int64_t column = is_number ? static_cast<int64_t>(left) + corner % 2 : -1;
    const int64_t row = is_number ? static_cast<int64_t>(top) + corner / 2 : -1;
    const bool inside = column >= 0 && column < width && row >= 0 && row < height;
    corners.position[corner] = inside ? start + row * width + column : -1;
  }
  return true;
}

// Calls visit(q, sample, corners) for all samples of a head that are inside a map.
template <typename S, typename Visit>
void for_each_sample(const Sizes& sizes, const S* locations, const int64_t* shapes, int64_t b, int64_t h,
                     const Visit& visit) {
  Corners<S> corners;
  for (int64_t q = 0; q < sizes.queries; ++q) {
    int64_t start = 0;
    for (int64_t map = 0; map < sizes.maps; ++map) {
      for (int64_t point = 0; point < sizes.points; ++point) {
        const int64_t sample = sizes.sample(b, q, h, map, point);
        if (find_corners(locations + 2 * sample, shapes + 2 * map, start, corners)) visit(q, sample, corners);
      }
      start += shapes[2 * map] * shapes[2 * map + 1];
    }
  }
}

// Calls run(b, h) for all heads, each in one thread.
template <typename Run>
void for_each_head(const Sizes& sizes, const Run& run) {
  at::parallel_for(0, sizes.batch * sizes.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) run(index / sizes.heads, index % sizes.heads);
  });
}

Sizes check(const Tensor& value, const Tensor& shapes, const Tensor& locations, const Tensor& weights) {
  TORCH_CHECK(value.dim() == 4, kOp, ": expected value of shape (B, V, H, C), got ", value.sizes());
  TORCH_CHECK(weights.dim() == 5, kOp, ": expected weights of shape (B, Q, H, L, P), got ", weights.sizes());
  const at::ScalarType type = value.scalar_type();
  TORCH_CHECK(type == at::kFloat || type == at::kDouble, kOp, ": expected float32 or float64, got ", type);
  const Sizes sizes{value.size(0),   value.size(1),   value.size(2),  value.size(3),
                    weights.size(1), weights.size(3), weights.size(4)};
  check_tensor(shapes, "shapes", {sizes.maps, 2}, at::kLong, kOp);
  check_tensor(weights, "weights", {sizes.batch, sizes.queries, sizes.heads, sizes.maps, sizes.points}, type, kOp);
  check_tensor(locations, "locations", {sizes.batch, sizes.queries, sizes.heads, sizes.maps, sizes.points, 2}, type,
               kOp);
  const int64_t* sides = shapes.const_data_ptr<int64_t>();
  int64_t positions = 0;
  for (int64_t map = 0; map < sizes.maps; ++map) {
    TORCH_CHECK(sides[2 * map] > 0 && sides[2 * map + 1] > 0, kOp, ": expected positive sides, got ", shapes);
    positions += sides[2 * map] * sides[2 * map + 1];
  }
  TORCH_CHECK(positions == sizes.positions, kOp, ": expected value of as many positions as the maps have, ", positions,
              ", got ", sizes.positions);
  return sizes;
}

Tensor forward(const Tensor& value_, const Tensor& shapes_, const Tensor& locations_, const Tensor& weights_) {
  const Tensor value = value_.contiguous(), shapes = shapes_.contiguous(), locations = locations_.contiguous(),
               weights = weights_.contiguous();
  const Sizes sizes = check(value, shapes, locations, weights);
  const Tensor output = at::zeros({sizes.batch, sizes.queries, sizes.heads, sizes.channels}, value.options());
  with_compute_type(value.scalar_type(), [&](auto scalar) {
    using S = decltype(scalar);
    const S* values = value.const_data_ptr<S>();
    const S* attention = weights.const_data_ptr<S>();
    S* results = output.mutable_data_ptr<S>();
    for_each_head(sizes, [&](int64_t b, int64_t h) {
      const auto add = [&](int64_t q, int64_t sample, const Corners<S>& corners) {
        S* result = results + sizes.output(b, q, h);
        if (std::isnan(corners.x + corners.y)) {
          std::fill_n(result, sizes.channels, std::numeric_limits<S>::quiet_NaN());
        }
        for (int corner = 0; corner < kCorners; ++corner) {
          if (corners.position[corner] < 0) continue;
          const S* row = values + sizes.value(b, corners.position[corner], h);
          const S weight = attention[sample] * corners.weight(corner);
#pragma omp simd
          for (int64_t c = 0; c < sizes.channels; ++c) result[c] += weight * row[c];
        }
      };
      for_each_sample(sizes, locations.const_data_ptr<S>(), shapes.const_data_ptr<int64_t>(), b, h, add);
    });
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_, const Tensor& value_, const Tensor& shapes_,
                                            const Tensor& locations_, const Tensor& weights_) {
  const Tensor grad = grad_.contiguous(), value = value_.contiguous(), shapes = shapes_.contiguous(),
               locations = locations_.contiguous(), weights = weights_.contiguous();
  const Sizes sizes = check(value, shapes, locations, weights);
  check_tensor(grad, "grad", {sizes.batch, sizes.queries, sizes.heads, sizes.channels}, value.scalar_type(), kOp);
  const Tensor grad_value = at::zeros_like(value), grad_locations = at::zeros_like(locations),
               grad_weights = at::zeros_like(weights);
  with_compute_type(value.scalar_type(), [&](auto scalar) {
    using S = decltype(scalar);
    const S* values = value.const_data_ptr<S>();
    const S* attention = weights.const_data_ptr<S>();
    const S* gradients = grad.const_data_ptr<S>();
    S* to_values = grad_value.mutable_data_ptr<S>();
    S* to_locations = grad_locations.mutable_data_ptr<S>();
    S* to_weights = grad_weights.mutable_data_ptr<S>();
    // A head has its own columns of the values, so that no two threads write the same element.
    for_each_head(sizes, [&](int64_t b, int64_t h) {
      const auto add = [&](int64_t q, int64_t sample, const Corners<S>& corners) {
        const S* gradient = gradients + sizes.output(b, q, h);
        S products[kCorners] = {};  // of the gradient and the features at the corners
        S total = 0;
        for (int corner = 0; corner < kCorners; ++corner) {
          if (corners.position[corner] < 0) continue;
          const int64_t offset = sizes.value(b, corners.position[corner], h);
          const S* row = values + offset;
          S* to_row = to_values + offset;
          const S weight = attention[sample] * corners.weight(corner);
          S product = 0;
#pragma omp simd reduction(+ : product)
          for (int64_t c = 0; c < sizes.channels; ++c) {
            product += gradient[c] * row[c];
            to_row[c] += weight * gradient[c];
          }
          products[corner] = product;
          total += corners.weight(corner) * product;
        }
        const S along_x = (1 - corners.y) * (products[1] - products[0]) + corners.y * (products[3] - products[2]);
        const S along_y = (1 - corners.x) * (products[2] - products[0]) + corners.x * (products[3] - products[1]);
        to_weights[sample] = total;
        to_locations[2 * sample] = attention[sample] * corners.width * along_x;
        to_locations[2 * sample + 1] = attention[sample] * corners.height * along_y;
      };
      for_each_sample(sizes, locations.const_data_ptr<S>(), shapes.const_data_ptr<int64_t>(), b, h, add);
    });
  });
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmdefocus, CPU, m) {
  m.impl("deformable_sampling", &forward);
  m.impl("deformable_sampling_backward", &backward);
}

}  // namespace mmdefocus::cpu
