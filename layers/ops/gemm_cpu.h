// The CPU's side of gemm.h: plain pointers, everything checked by the caller.
#pragma once

#include "layers/ops/gemm.h"

#include <cstdint>
#include <span>

namespace switchyard {

// packed: PackedMatrix::packed_size(k, n) floats. Element (i, j) of B is source[i * k_stride + j * n_stride]; one of
// the strides is 1.
void pack_cpu(const float* source, std::int64_t k, std::int64_t n, std::int64_t k_stride, std::int64_t n_stride,
              float* packed);

// All b[g] are [k, n]; x: [rows, k], y: [rows, n].
void grouped_gemm_cpu(const float* x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                      std::int64_t k, std::int64_t n, float* y, bool accumulate);

// dy: [rows, n], x: [rows, k], gradients [n, k].
void grouped_weight_gradient_cpu(const float* dy, const float* x, std::int64_t n, std::int64_t k,
                                 std::span<const RowRange> ranges, std::span<const std::int64_t> segment_begin,
                                 std::span<const std::int64_t> group_begin,
                                 std::span<const GradientSum* const> gradients);

// Scratch memory for each of `threads` threads, 64-byte aligned. It is made before they start, because what is thrown
// inside a parallel region ends the program. It belongs to the calling thread, which keeps it for its next product: one
// of these at a time.
class GemmScratch {
 public:
  GemmScratch(int threads, std::int64_t floats);
  float* of(int thread) const { return begin_ + thread * stride_; }

 private:
  float* begin_;
  std::int64_t stride_;
};

// Into how many pieces a task of `work` multiply-adds is cut so that `threads` share `total` evenly; at most `most`.
std::int64_t pieces_of(std::int64_t work, std::int64_t total, int threads, std::int64_t most);
// The threads that are worth waking for so many multiply-adds.
int threads_for(std::int64_t total);

}  // namespace switchyard
