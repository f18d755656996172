#include "layers/ops/gemm.h"

#include "comm/base/timers.h"
#include "layers/ops/gemm_cpu.h"
#include "layers/ops/gemm_layout.h"

#include <array>

namespace switchyard {
namespace {

void check_bounds(const char* op, const char* name, std::span<const std::int64_t> begin, std::size_t parts,
                  std::int64_t most) {
  require(begin.size() == parts + 1, "{}: {} has {} entries, wanted {}", op, name, begin.size(), parts + 1);
  require(begin.front() >= 0 && begin.back() <= most, "{}: {} goes from {} to {}, outside 0 to {}", op, name,
          begin.front(), begin.back(), most);
  for (std::size_t i = 0; i < parts; ++i) {
    require(begin[i] <= begin[i + 1], "{}: {}[{}] = {} is more than the next, {}", op, name, i, begin[i], begin[i + 1]);
  }
}

}  // namespace

std::int64_t PackedMatrix::packed_size(std::int64_t k, std::int64_t n) {
  return k * gemm_layout::panels(n) * gemm_layout::panel_width;
}

void PackedMatrix::pack_transposed(const Tensor& weight) {
  require(weight.shape().rank() == 2, "pack: a weight is {}, wanted [N, K]", weight.shape().to_string());
  assign(weight.f32(), weight.dim(1), weight.dim(0), 1, weight.dim(1), weight.device());
}

void PackedMatrix::pack(const Tensor& weight) {
  require(weight.shape().rank() == 2, "pack: a weight is {}, wanted [N, K]", weight.shape().to_string());
  assign(weight.f32(), weight.dim(0), weight.dim(1), weight.dim(1), 1, weight.device());
}

void PackedMatrix::assign(const float* source, std::int64_t k, std::int64_t n, std::int64_t k_stride,
                          std::int64_t n_stride, Device& device) {
  if (device.kind() != DeviceKind::Cpu) fail_on_device("pack", device);
  const Bytes bytes(packed_size(k, n) * size_of(DType::F32));
  if (memory_.device() != &device || memory_.size() != bytes) memory_ = Buffer(device, bytes);
  k_ = k;
  n_ = n;
  const PhaseTimer timer(Phase::Gemm);
  pack_cpu(source, k, n, k_stride, n_stride, static_cast<float*>(memory_.data()));
}

void gemm(const Tensor& x, const PackedMatrix& b, Tensor y, bool accumulate) {
  const std::array<std::int64_t, 2> rows = {0, x.rows()};
  const std::array<const PackedMatrix*, 1> one = {&b};
  grouped_gemm(x, rows, one, y, accumulate);
}

void grouped_gemm(const Tensor& x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                  Tensor y, bool accumulate) {
  if (b.empty()) return;
  const std::int64_t k = b.front()->k();
  const std::int64_t n = b.front()->n();
  for (std::size_t g = 0; g < b.size(); ++g) {
    require(b[g]->k() == k && b[g]->n() == n, "grouped_gemm: b[{}] is [{}, {}], b[0] is [{}, {}]", g, b[g]->k(),
            b[g]->n(), k, n);
  }
  require(x.cols() == k && y.cols() == n && x.rows() == y.rows(),
          "grouped_gemm: x is {}, b is [{}, {}] and y is {}: not a product", x.shape().to_string(), k, n,
          y.shape().to_string());
  check_bounds("grouped_gemm", "row_begin", row_begin, b.size(), x.rows());
  Device& device = x.device();
  if (device.kind() != DeviceKind::Cpu) fail_on_device("grouped_gemm", device);
  const double rows = static_cast<double>(row_begin.back() - row_begin.front());
  const PhaseTimer timer(Phase::Gemm, 2 * rows * static_cast<double>(k) * static_cast<double>(n));
  grouped_gemm_cpu(x.f32(), row_begin, b, k, n, y.f32(), accumulate);
}

void grouped_weight_gradient(const Tensor& dy, const Tensor& x, std::span<const std::int64_t> segment_begin,
                             std::span<const std::int64_t> group_begin, std::span<const GradientSum* const> gradients) {
  if (gradients.empty()) return;
  require(!segment_begin.empty(), "weight_gradient: segment_begin is empty");
  check_bounds("weight_gradient", "segment_begin", segment_begin, segment_begin.size() - 1, x.rows());
  std::vector<RowRange> ranges;
  std::vector<std::int64_t> each(1, 0);
  for (std::size_t i = 0; i + 1 < segment_begin.size(); ++i) {
    ranges.push_back({segment_begin[i], segment_begin[i + 1]});
    each.push_back(isize(ranges.size()));
  }
  grouped_weight_gradient(dy, x, ranges, each, group_begin, gradients);
}

void grouped_weight_gradient(const Tensor& dy, const Tensor& x, std::span<const RowRange> ranges,
                             std::span<const std::int64_t> segment_begin, std::span<const std::int64_t> group_begin,
                             std::span<const GradientSum* const> gradients) {
  if (gradients.empty()) return;
  require(dy.rows() == x.rows(), "weight_gradient: dy is {} and x is {}: not the same rows", dy.shape().to_string(),
          x.shape().to_string());
  require(!segment_begin.empty(), "weight_gradient: segment_begin is empty");
  check_bounds("weight_gradient", "segment_begin", segment_begin, segment_begin.size() - 1, isize(ranges.size()));
  check_bounds("weight_gradient", "group_begin", group_begin, gradients.size(), isize(segment_begin.size()) - 1);
  std::int64_t rows = 0;
  for (const RowRange& range : ranges) {
    require(range.begin >= 0 && range.begin <= range.end && range.end <= x.rows(),
            "weight_gradient: a range goes from row {} to {} of {}", range.begin, range.end, x.rows());
    rows += range.size();
  }
  for (const GradientSum* gradient : gradients) {
    require(gradient->size == dy.cols() * x.cols(), "weight_gradient: a gradient has {} elements, wanted {} x {}",
            gradient->size, dy.cols(), x.cols());
  }
  Device& device = x.device();
  if (device.kind() != DeviceKind::Cpu) fail_on_device("weight_gradient", device);
  const PhaseTimer timer(
      Phase::Gemm, 2 * static_cast<double>(rows) * static_cast<double>(dy.cols()) * static_cast<double>(x.cols()));
  grouped_weight_gradient_cpu(dy.f32(), x.f32(), dy.cols(), x.cols(), ranges, segment_begin, group_begin, gradients);
}

void weight_gradient(const Tensor& dy, const Tensor& x, const GradientSum& gradient) {
  const std::array<std::int64_t, 2> segment = {0, x.rows()};
  const std::array<std::int64_t, 2> group = {0, 1};
  const std::array<const GradientSum*, 1> one = {&gradient};
  grouped_weight_gradient(dy, x, segment, group, one);
}

}  // namespace switchyard
