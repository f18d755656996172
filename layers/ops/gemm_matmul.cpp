#include "layers/ops/gemm_matmul.h"

#include "layers/ops/matmul_cuda.h"

#include <algorithm>

namespace switchyard {

void grouped_matmul(const Tensor& x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                    Tensor y, bool accumulate) {
  for (std::size_t g = 0; g < b.size(); ++g) {
    const Tensor& weight = b[g]->on_device();
    require(weight.defined() && weight.dtype() == x.dtype() && &weight.device() == &x.device(),
            "grouped_gemm: x is {} on {}, b[{}] is packed for something else", name_of(x.dtype()), x.device().name(),
            g);
    const std::int64_t rows = row_begin[g + 1] - row_begin[g];
    cuda::matmul(x.device(), {.m = rows,
                              .n = b[g]->n(),
                              .k = b[g]->k(),
                              .a = x.slice(row_begin[g], rows).raw(),
                              .b = weight.raw(),
                              .b_transposed = b[g]->is_transposed(),
                              .in = x.dtype(),
                              .c = y.slice(row_begin[g], rows).raw(),
                              .out = y.dtype(),
                              .accumulate = accumulate});
  }
}

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

void grouped_weight_matmul(const Tensor& dy, const Tensor& x, std::span<const RowRange> ranges,
                           std::span<const std::int64_t> segment_begin, std::span<const std::int64_t> group_begin,
                           std::span<const GradientSum* const> gradients) {
  const bool exact = gradients.front()->exact != nullptr;
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

}  // namespace switchyard
