// What gemm.cpp runs on a CUDA device: products of the groups, one after the other. Arguments as in gemm.h.
#pragma once

#include "layers/ops/gemm.h"

#include <span>

namespace switchyard {

void grouped_matmul(const Tensor& x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                    Tensor y, bool accumulate);
void grouped_weight_matmul(const Tensor& dy, const Tensor& x, std::span<const RowRange> ranges,
                           std::span<const std::int64_t> segment_begin, std::span<const std::int64_t> group_begin,
                           std::span<const GradientSum* const> gradients);
// sum = dy^T x (+ sum).  dy: [S, N], x: [S, K], sum: [N, K]
void weight_matmul(const Tensor& dy, const Tensor& x, float* sum, bool accumulate);

}  // namespace switchyard
