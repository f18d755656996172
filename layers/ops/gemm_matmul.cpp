#include "layers/ops/gemm_matmul.h"

#include "layers/ops/grouped_gemm_cuda.h"
#include "layers/ops/matmul_cuda.h"

#include <algorithm>

namespace switchyard {
namespace {

bool is_ours(ProductsBy by, Numerics numerics, std::size_t groups) {
  return by == ProductsBy::Ours || by == ProductsBy::OursByMma ||
         (by == ProductsBy::Fitting && (numerics == Numerics::Reproducible || groups > 1));
}

cuda::TensorCores cores_of(ProductsBy by) {
  return by == ProductsBy::OursByMma ? cuda::TensorCores::Mma : cuda::TensorCores::Best;
}

void check_types(const Tensor& x, std::span<const PackedMatrix* const> b, const Tensor& y) {
  for (std::size_t g = 0; g < b.size(); ++g) {
    const Tensor& weight = b[g]->on_device();
    require(weight.defined() && weight.dtype() == x.dtype() && &weight.device() == &x.device(),
            "grouped_gemm: x is {} on {}, b[{}] is packed for something else", name_of(x.dtype()), x.device().name(),
            g);
  }
  require(y.dtype() == DType::F32 || (y.dtype() == DType::BF16 && x.dtype() == DType::BF16),
          "grouped_gemm: x is {}, y is {}", name_of(x.dtype()), name_of(y.dtype()));
}

// sum = dy^T x (+ sum)
void weight_matmul(const Tensor& dy, const Tensor& x, float* sum, bool accumulate) {
  require(dy.dtype() == x.dtype(), "weight_gradient: dy is {} and x is {}", name_of(dy.dtype()), name_of(x.dtype()));
  cuda::matmul(x.device(), {.m = dy.cols(),
                            .n = x.cols(),
                            .k = x.rows(),
                            .a = dy.raw(),
                            .a_transposed = true,
                            .b = x.raw(),
                            .in = x.dtype(),
                            .c = sum,
                            .accumulate = accumulate});
}

}  // namespace

void grouped_matmul(const Tensor& x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                    Tensor y, bool accumulate, ProductsBy by) {
  check_types(x, b, y);
  if (is_ours(by, b.front()->numerics(), b.size()))
    return cuda::grouped_gemm(x, row_begin, b, y, accumulate, cores_of(by));
  for (std::size_t g = 0; g < b.size(); ++g) {
    const std::int64_t rows = row_begin[g + 1] - row_begin[g];
    cuda::matmul(x.device(), {.m = rows,
                              .n = b[g]->n(),
                              .k = b[g]->k(),
                              .a = x.slice(row_begin[g], rows).raw(),
                              .b = b[g]->on_device().raw(),
                              .b_transposed = b[g]->is_transposed(),
                              .in = x.dtype(),
                              .c = y.slice(row_begin[g], rows).raw(),
                              .out = y.dtype(),
                              .accumulate = accumulate});
  }
}

void grouped_matmul(const Tensor& x, const Tensor& row_begin, std::span<const PackedMatrix* const> b, Tensor y,
                    bool accumulate) {
  check_types(x, b, y);
  cuda::grouped_gemm(x, row_begin, b, y, accumulate);
}

void grouped_weight_matmul(const Tensor& dy, const Tensor& x, std::span<const RowRange> ranges,
                           std::span<const std::int64_t> segment_begin, std::span<const std::int64_t> group_begin,
                           std::span<const GradientSum* const> gradients, ProductsBy by) {
  const bool exact = gradients.front()->exact != nullptr;
  const Numerics numerics = exact ? Numerics::Reproducible : gradients.front()->numerics;
  if (is_ours(by, numerics, gradients.size())) {
    return cuda::grouped_weight_gradient(dy, x, ranges, segment_begin, group_begin, gradients, cores_of(by));
  }
  // The partial of one segment: exact sums take it as a whole.
  void* const partial = exact ? x.device().workspace(Bytes(dy.cols() * x.cols() * size_of(DType::F32))) : nullptr;
  for (std::size_t g = 0; g < gradients.size(); ++g) {
    const GradientSum& gradient = *gradients[g];
    for (std::int64_t s = group_begin[g]; s < group_begin[g + 1]; ++s) {
      bool first = true;
      float* const sum = exact ? static_cast<float*>(partial) : gradient.plain;
      for (std::int64_t r = segment_begin[usize(s)]; r < segment_begin[usize(s) + 1]; ++r) {
        const RowRange& range = ranges[usize(r)];
        if (range.size() == 0) continue;
        weight_matmul(dy.slice(range.begin, range.size()), x.slice(range.begin, range.size()), sum, !exact || !first);
        first = false;
      }
      if (exact && !first) add_partial(gradient, sum, gradient.size);
    }
  }
}

void grouped_weight_matmul(const Tensor& dy, const Tensor& x, const Tensor& segment_begin,
                           std::span<const std::int64_t> group_begin, std::span<const GradientSum* const> gradients) {
  cuda::grouped_weight_gradient(dy, x, segment_begin, group_begin, gradients);
}

void add_weight_matmul(const Tensor& dy, const Tensor& x, Tensor sum) {
  cuda::continue_weight_gradient(dy, x, sum);
}

}  // namespace switchyard
