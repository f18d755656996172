// Matrix products whose every output element is one fixed chain of fused multiply-adds over k, in ascending k. So row i
// of C has the same bits whatever rows stand beside it, on any number of threads and for any vector width (law 1).
//
//   M rows of activations, K inner size, N outputs, all fp32.
//
// Weights are [N, K] (out, in), as PyTorch stores them; they are packed once and used for every micro-batch of a step.
// A chain starts from zero, or from C where `accumulate` asks for it.
//
// On a CUDA device a product reads the weight itself or its copy in bf16; x and y are then fp32 or bf16, and the sums
// fp32. With reproducible numerics the kernels are ours and what is said above holds (in fp32 the bits are the CPU's;
// in bf16 the tensor cores add 16 products at a time). With fast numerics a single product is cuBLAS's, with its own
// order of sums, and the products of several groups are one launch of ours.
#pragma once

#include "comm/base/numerics.h"
#include "comm/device/device.h"
#include "layers/tensor/parameter.h"
#include "layers/tensor/tensor.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// The right-hand side of a product, B[K, N]: on the CPU in the panels that the kernel reads, on a CUDA device as the
// weight lies.
class PackedMatrix {
 public:
  PackedMatrix() = default;
  std::int64_t k() const { return k_; }
  std::int64_t n() const { return n_; }
  const float* data() const { return static_cast<const float*>(memory_.data()); }
  static std::int64_t packed_size(std::int64_t k, std::int64_t n);  // floats

  // B = weight^T (forward: y = x W^T) or B = weight (backward: dx = dy W); weight: [N, K] of the layer, which stays
  // where it is as long as this is used. On a CUDA device, as: F32 or BF16, and numerics: of the products with it.
  void pack_transposed(const Tensor& weight, DType as = DType::F32, Numerics numerics = Numerics::Fast);
  void pack(const Tensor& weight, DType as = DType::F32, Numerics numerics = Numerics::Fast);
  // On a CUDA device: B = the transpose of what `other` has, in its memory.
  void refer_transposed(const PackedMatrix& other);

  const Tensor& on_device() const { return on_device_; }  // [N, K] where is_transposed(), else [K, N]
  bool is_transposed() const { return transposed_; }
  Numerics numerics() const { return numerics_; }

 private:
  void assign(const Tensor& weight, bool transposed, DType as, Numerics numerics);
  Buffer memory_;
  std::int64_t k_ = 0;
  std::int64_t n_ = 0;
  Tensor on_device_;
  bool transposed_ = false;
  Numerics numerics_ = Numerics::Fast;
};

// y = x B (+ y).  x: [M, K], y: [M, N].
void gemm(const Tensor& x, const PackedMatrix& b, Tensor y, bool accumulate = false);

// One product a group, over consecutive rows: rows [row_begin[g], row_begin[g + 1]) of x times *b[g]. Groups may be
// empty. x: [S, K], y: [S, N]; row_begin: [groups + 1].
void grouped_gemm(const Tensor& x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                  Tensor y, bool accumulate = false);
// The same where the bounds lie on x's device, I32 [groups + 1]: a CUDA device's host does not wait for them. What of
// them lies outside x is cut.
void grouped_gemm(const Tensor& x, const Tensor& row_begin, std::span<const PackedMatrix* const> b, Tensor y,
                  bool accumulate = false);

// Weight gradients. For each group g and each of its segments s (the rows of one micro-batch): the partial
// dW = dy[rows]^T x[rows], [N, K], one chain over the segment's rows, is added to *gradients[g] (add_partial's rule) as
// each tile is finished; the partial itself is never whole in memory. dy: [S, N], x: [S, K].
// Segments of group g: rows [segment_begin[i], segment_begin[i + 1]) for i in [group_begin[g], group_begin[g + 1]).
// Empty segments add nothing.
void grouped_weight_gradient(const Tensor& dy, const Tensor& x, std::span<const std::int64_t> segment_begin,
                             std::span<const std::int64_t> group_begin, std::span<const GradientSum* const> gradients);
// The same where the rows of a segment lie in several places: segment i is the ranges [segment_begin[i],
// segment_begin[i + 1]), one chain over the rows of all of them in order.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t size() const { return end - begin; }
};
void grouped_weight_gradient(const Tensor& dy, const Tensor& x, std::span<const RowRange> ranges,
                             std::span<const std::int64_t> segment_begin, std::span<const std::int64_t> group_begin,
                             std::span<const GradientSum* const> gradients);
// The same where the bounds of the segments lie on x's device, I32 [segments + 1]; group_begin is the host's.
void grouped_weight_gradient(const Tensor& dy, const Tensor& x, const Tensor& segment_begin,
                             std::span<const std::int64_t> group_begin, std::span<const GradientSum* const> gradients);
// The same for one weight and one micro-batch.
void weight_gradient(const Tensor& dy, const Tensor& x, const GradientSum& gradient);

// sum += dy^T x over the rows, each element one chain that goes on from what the sum holds.  dy: [S, N], x: [S, K],
// sum: [N, K], fp32
void add_weight_product(const Tensor& dy, const Tensor& x, RowRange rows, Arena& scratch, Tensor sum);

// The fused multiply-add rate of `threads` cores, GFLOP/s, measured now for `seconds` with independent chains in
// registers; what a GEMM rate is compared with.
double measure_peak_gflops(int threads, double seconds);

}  // namespace switchyard
