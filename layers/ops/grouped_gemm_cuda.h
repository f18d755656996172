// Matrix products of ours on a CUDA device, for all groups in one launch. Arguments as in gemm.h; bounds are the
// host's, or int32 in the device's memory, which the host then need not know.
//
// Each element of a result is one chain in a fixed order, which depends on the length of the sum alone: a row of y has
// the same bits whatever rows stand beside it and in which group it is.
#pragma once

#include "layers/ops/gemm.h"
#include "layers/ops/tensor_cores_cuda.h"

#include <cstdint>
#include <span>

namespace switchyard::cuda {

void grouped_gemm(const Tensor& x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                  Tensor y, bool accumulate, TensorCores cores = TensorCores::Best);
void grouped_gemm(const Tensor& x, const Tensor& row_begin, std::span<const PackedMatrix* const> b, Tensor y,
                  bool accumulate);

void grouped_weight_gradient(const Tensor& dy, const Tensor& x, std::span<const RowRange> ranges,
                             std::span<const std::int64_t> segment_begin, std::span<const std::int64_t> group_begin,
                             std::span<const GradientSum* const> gradients, TensorCores cores = TensorCores::Best);
void grouped_weight_gradient(const Tensor& dy, const Tensor& x, const Tensor& segment_begin,
                             std::span<const std::int64_t> group_begin, std::span<const GradientSum* const> gradients);
// sum += dy^T x, each element one chain that goes on from what the sum holds.
void continue_weight_gradient(const Tensor& dy, const Tensor& x, Tensor sum);

}  // namespace switchyard::cuda
