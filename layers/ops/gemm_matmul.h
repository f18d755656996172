// What gemm.cpp runs on a CUDA device. Arguments as in gemm.h.
#pragma once

#include "layers/ops/gemm.h"

#include <span>

namespace switchyard {

// Whose products: ours are one launch whatever the number of groups, with sums in a fixed order; cuBLAS's are one call
// a group, whose rows the host must know. Fitting: ours where the numerics are reproducible or there are several
// groups. OursByMma: ours without wgmma, for comparison.
enum class ProductsBy { Fitting, Ours, OursByMma, Cublas };

void grouped_matmul(const Tensor& x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                    Tensor y, bool accumulate, ProductsBy by = ProductsBy::Fitting);
void grouped_matmul(const Tensor& x, const Tensor& row_begin, std::span<const PackedMatrix* const> b, Tensor y,
                    bool accumulate);
void grouped_weight_matmul(const Tensor& dy, const Tensor& x, std::span<const RowRange> ranges,
                           std::span<const std::int64_t> segment_begin, std::span<const std::int64_t> group_begin,
                           std::span<const GradientSum* const> gradients, ProductsBy by = ProductsBy::Fitting);
void grouped_weight_matmul(const Tensor& dy, const Tensor& x, const Tensor& segment_begin,
                           std::span<const std::int64_t> group_begin, std::span<const GradientSum* const> gradients);
// sum += dy^T x, each element one chain that goes on from what the sum holds.
void add_weight_matmul(const Tensor& dy, const Tensor& x, Tensor sum);

}  // namespace switchyard
