// The arguments of the De-focus scan, checked, in the memory layout that the kernels read.
// Shapes: B batch, L tokens, E channels, N state.
#pragma once

#include <ATen/Functions.h>
#include <c10/cuda/CUDAException.h>

#include <algorithm>
#include <limits>

#include "cuda/defocus_scan/arguments.h"
#include "cuda/common/tensor_arguments.h"

namespace mmdefocus::cuda {

using at::Tensor;

inline int multiprocessors(at::Device device) {
  int count = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device.index()));
  return count;
}

struct ScanArguments {
  static constexpr const char* kOp = "mmdefocus::defocus_scan";
  Tensor u, dt, A, B, C, D, z, dt_bias, freq, positions, initial_state;
  Sizes sizes;

  ScanArguments(const Tensor& u_, const Tensor& dt_, const Tensor& A_, const Tensor& B_, const Tensor& C_,
                const Tensor& D_, const Tensor& z_, const Tensor& dt_bias_, const std::optional<Tensor>& freq_,
                const std::optional<Tensor>& positions_, const std::optional<Tensor>& initial_state_,
                double delta_scale, int64_t group_size, double eps)
      : u(u_), dt(dt_), A(A_), B(B_), C(C_), D(D_), z(z_), dt_bias(dt_bias_) {
    if (freq_.has_value()) freq = *freq_;
    if (positions_.has_value()) positions = *positions_;
    if (initial_state_.has_value()) initial_state = *initial_state_;
    check(group_size);

    u = with_dense_channels(u);
    dt = with_dense_channels(dt);
    z = with_dense_channels(z);
    for (Tensor* tensor : {&A, &D, &dt_bias, &freq, &positions, &initial_state}) {
      if (tensor->defined()) *tensor = contiguous_and_aligned(*tensor);
    }
    set_sizes(delta_scale, group_size, eps);
  }

  bool has_rotary() const { return freq.defined(); }
  Tensor empty(at::IntArrayRef shape) const { return at::empty(shape, u.options().dtype(at::kFloat)); }

  template <typename T>
  Projections<T> projections() const {
    return {sizes,
            B.const_data_ptr<T>(),
            C.const_data_ptr<T>(),
            {B.stride(0), B.stride(1), B.stride(2)},
            {C.stride(0), C.stride(1), C.stride(2)},
            has_rotary() ? positions.const_data_ptr<float>() : nullptr,
            has_rotary() ? freq.const_data_ptr<float>() : nullptr};
  }

  template <typename T>
  ScanInputs<T> inputs(const Tensor& rotated) const {
    return {sizes,
            input_rows<T>(u),
            input_rows<T>(dt),
            input_rows<T>(z),
            A.const_data_ptr<float>(),
            D.const_data_ptr<float>(),
            dt_bias.const_data_ptr<float>(),
            rotated.const_data_ptr<float>()};
  }

 private:
  void check(int64_t group_size) const {
    TORCH_CHECK(u.dim() == 3 && u.size(1) > 0 && u.size(2) > 0, kOp,
                ": expected u of shape (B, L, E) with L > 0 and E > 0, got ", u.sizes());
    TORCH_CHECK(A.dim() == 2, kOp, ": expected A of shape (E, N), got ", A.sizes());
    const int64_t batch = u.size(0), length = u.size(1), channels = u.size(2), state = A.size(1);
    const at::ScalarType type = u.scalar_type();
    const at::Device device = u.device();
    check_like(dt, "dt", u.sizes(), type, device, kOp);
    check_like(z, "z", u.sizes(), type, device, kOp);
    check_like(B, "B", {batch, length, state}, type, device, kOp);
    check_like(C, "C", {batch, length, state}, type, device, kOp);
    check_like(A, "A", {channels, state}, at::kFloat, device, kOp);
    check_like(D, "D", {channels}, at::kFloat, device, kOp);
    check_like(dt_bias, "dt_bias", {channels}, at::kFloat, device, kOp);
    if (initial_state.defined()) {
      check_like(initial_state, "initial_state", {batch, channels, state}, at::kFloat, device, kOp);
    }
    if (has_rotary()) {
      TORCH_CHECK(positions.defined(), kOp, ": expected positions along with freq");
      TORCH_CHECK(state % 2 == 0, kOp, ": expected an even state with freq, got ", state);
      check_like(freq, "freq", {state}, at::kFloat, device, kOp);
      check_like(positions, "positions", {length}, at::kFloat, device, kOp);
    }
    TORCH_CHECK(0 < state && state <= kMaxState, kOp, ": the CUDA kernels take a state of 1 to ", kMaxState, ", got ",
                state);
    TORCH_CHECK(group_size > 0 && channels % group_size == 0, kOp, ": expected a group_size that divides the ",
                channels, " channels, got ", group_size);
    TORCH_CHECK(group_size <= kBlockChannels, kOp, ": the CUDA kernels take a group_size of up to ", kBlockChannels,
                ", got ", group_size);
    // Kernels count steps and channels in int, and look up to kForwardSteps beyond the end.
    constexpr int64_t kMaxSize = std::numeric_limits<int>::max() - kForwardSteps;
    TORCH_CHECK(batch <= kMaxSize && length <= kMaxSize && channels <= kMaxSize, kOp,
                ": expected sizes below 2^31, got ", u.sizes());
  }

  void set_sizes(double delta_scale, int64_t group_size, double eps) {
    // As many whole norm groups as fit, so that no group needs sums across thread blocks.
    const int64_t groups = std::min<int64_t>(kBlockChannels / group_size, kBlockGroups);
    const int64_t block_channels = groups * group_size;
    const int64_t channel_blocks = ceil_div(u.size(2), block_channels);
    const int64_t thread_blocks = std::max<int64_t>(u.size(0) * channel_blocks, 1);
    const int64_t segment_steps =
        gpu_segment_steps(u.size(1), thread_blocks, multiprocessors(u.device()), kForwardSteps, kMinSegmentSteps);
    const int64_t segments = ceil_div(u.size(1), segment_steps);
    TORCH_CHECK(thread_blocks * segments <= std::numeric_limits<int>::max(), kOp, ": u of shape ", u.sizes(),
                " needs more than the 2^31 - 1 thread blocks of a CUDA grid");
    sizes.batch = static_cast<int>(u.size(0));
    sizes.length = static_cast<int>(u.size(1));
    sizes.channels = static_cast<int>(u.size(2));
    sizes.state = static_cast<int>(A.size(1));
    sizes.group_size = static_cast<int>(group_size);
    sizes.group_shift = 0;
    for (const int shift : {3, 4, 5, 6}) {
      if (group_size == 1 << shift) sizes.group_shift = shift;
    }
    sizes.block_channels = static_cast<int>(block_channels);
    sizes.channel_blocks = static_cast<int>(channel_blocks);
    sizes.segments = static_cast<int>(segments);
    sizes.segment_steps = static_cast<int>(segment_steps);
    sizes.inverse_group_size = 1.0f / static_cast<float>(group_size);
    sizes.inverse_delta_scale = static_cast<float>(1.0 / delta_scale);
    sizes.eps = static_cast<float>(eps);
    // Offsets of blocks within a row, the length of a row and all strides must be multiples of 16 bytes.
    sizes.aligned = block_channels * u.element_size() % kPackBytes == 0 &&
                    u.size(2) * u.element_size() % kPackBytes == 0 && rows_are_aligned(u) && rows_are_aligned(dt) &&
                    rows_are_aligned(z);
  }
};

}  // namespace mmdefocus::cuda
