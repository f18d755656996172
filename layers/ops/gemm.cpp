#include "layers/ops/gemm.h"

#include "comm/base/timers.h"
#include "comm/device/work.h"
#include "layers/ops/convert.h"
#include "layers/ops/gemm_cpu.h"
#include "layers/ops/gemm_layout.h"
#include "layers/ops/gemm_matmul.h"

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

void check_product(const Tensor& x, std::span<const PackedMatrix* const> b, const Tensor& y) {
  const std::int64_t k = b.front()->k();
  const std::int64_t n = b.front()->n();
  for (std::size_t g = 0; g < b.size(); ++g) {
    require(b[g]->k() == k && b[g]->n() == n, "grouped_gemm: b[{}] is [{}, {}], b[0] is [{}, {}]", g, b[g]->k(),
            b[g]->n(), k, n);
  }
  require(x.cols() == k && y.cols() == n && x.rows() == y.rows(),
          "grouped_gemm: x is {}, b is [{}, {}] and y is {}: not a product", x.shape().to_string(), k, n,
          y.shape().to_string());
}

void check_gradients(const Tensor& dy, const Tensor& x, std::span<const GradientSum* const> gradients) {
  require(dy.rows() == x.rows(), "weight_gradient: dy is {} and x is {}: not the same rows", dy.shape().to_string(),
          x.shape().to_string());
  for (const GradientSum* gradient : gradients) {
    require(gradient->size == dy.cols() * x.cols(), "weight_gradient: a gradient has {} elements, wanted {} x {}",
            gradient->size, dy.cols(), x.cols());
  }
}

// Floating-point operations of a product.
double product_work(std::int64_t m, std::int64_t k, std::int64_t n) {
  return 2 * static_cast<double>(m) * static_cast<double>(k) * static_cast<double>(n);
}

// What a device's record calls them.
const char* name_of_products(std::size_t groups) {
  return groups == 1 ? "gemm" : "grouped gemm";
}
const char* name_of_gradients(std::size_t groups) {
  return groups == 1 ? "gemm (weight gradient)" : "grouped gemm (weight gradient)";
}

// Bounds that lie on the CPU.
std::vector<std::int64_t> bounds_of(const Tensor& begin) {
  return {begin.i32(), begin.i32() + begin.size()};
}

}  // namespace

std::int64_t PackedMatrix::packed_size(std::int64_t k, std::int64_t n) {
  return k * gemm_layout::panels(n) * gemm_layout::panel_width;
}

void PackedMatrix::pack_transposed(const Tensor& weight, DType as, Numerics numerics) {
  assign(weight, true, as, numerics);
}

void PackedMatrix::pack(const Tensor& weight, DType as, Numerics numerics) {
  assign(weight, false, as, numerics);
}

void PackedMatrix::assign(const Tensor& weight, bool transposed, DType as, Numerics numerics) {
  require(weight.shape().rank() == 2, "pack: a weight is {}, wanted [N, K]", weight.shape().to_string());
  Device& device = weight.device();
  k_ = weight.dim(transposed ? 1 : 0);
  n_ = weight.dim(transposed ? 0 : 1);
  transposed_ = transposed;
  numerics_ = numerics;
  const bool on_the_cpu = on_cpu(weight);
  require(as == DType::F32 || !on_the_cpu, "pack: products on the CPU read fp32, not {}", name_of(as));
  const auto room = [&](std::int64_t elements) {
    const Bytes bytes(elements * size_of(as));
    if (memory_.device() != &device || memory_.size() != bytes) memory_ = Buffer(device, bytes);
  };
  if (!on_the_cpu) {
    on_device_ = weight;
    if (as == weight.dtype()) return;
    room(weight.size());
    on_device_ = Tensor(memory_.data(), as, weight.shape(), device);
    return convert(weight, on_device_);
  }
  room(packed_size(k_, n_));
  const PhaseTimer timer(Phase::Gemm);
  pack_cpu(weight.f32(), k_, n_, transposed ? 1 : weight.dim(1), transposed ? weight.dim(1) : 1,
           static_cast<float*>(memory_.data()));
}

void PackedMatrix::refer_transposed(const PackedMatrix& other) {
  require(other.on_device_.defined(), "pack: only what lies on a CUDA device is read in both directions");
  k_ = other.n_;
  n_ = other.k_;
  on_device_ = other.on_device_;
  transposed_ = !other.transposed_;
  numerics_ = other.numerics_;
}

void gemm(const Tensor& x, const PackedMatrix& b, Tensor y, bool accumulate) {
  const std::array<std::int64_t, 2> rows = {0, x.rows()};
  const std::array<const PackedMatrix*, 1> one = {&b};
  grouped_gemm(x, rows, one, y, accumulate);
}

void grouped_gemm(const Tensor& x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                  Tensor y, bool accumulate) {
  if (b.empty()) return;
  check_product(x, b, y);
  check_bounds("grouped_gemm", "row_begin", row_begin, b.size(), x.rows());
  const std::int64_t k = b.front()->k(), n = b.front()->n();
  const double flops = product_work(row_begin.back() - row_begin.front(), k, n);
  const PhaseTimer timer(Phase::Gemm, flops);
  if (!on_cpu(x)) {
    const DeviceWork work(x.device(), name_of_products(b.size()), {.flops = flops});
    return grouped_matmul(x, row_begin, b, y, accumulate);
  }
  grouped_gemm_cpu(x.f32(), row_begin, b, k, n, y.f32(), accumulate);
}

void grouped_gemm(const Tensor& x, const Tensor& row_begin, std::span<const PackedMatrix* const> b, Tensor y,
                  bool accumulate) {
  if (b.empty()) return;
  check_tensor("grouped_gemm", "row_begin", row_begin, {isize(b.size()) + 1}, x.device(), DType::I32);
  if (on_cpu(x)) return grouped_gemm(x, bounds_of(row_begin), b, y, accumulate);
  check_product(x, b, y);
  const double flops = product_work(x.rows(), b.front()->k(), b.front()->n());  // at the most
  const PhaseTimer timer(Phase::Gemm, flops);
  const DeviceWork work(x.device(), name_of_products(b.size()), {.flops = flops});
  grouped_matmul(x, row_begin, b, y, accumulate);
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
  check_gradients(dy, x, gradients);
  require(!segment_begin.empty(), "weight_gradient: segment_begin is empty");
  check_bounds("weight_gradient", "segment_begin", segment_begin, segment_begin.size() - 1, isize(ranges.size()));
  check_bounds("weight_gradient", "group_begin", group_begin, gradients.size(), isize(segment_begin.size()) - 1);
  std::int64_t rows = 0;
  for (const RowRange& range : ranges) {
    require(range.begin >= 0 && range.begin <= range.end && range.end <= x.rows(),
            "weight_gradient: a range goes from row {} to {} of {}", range.begin, range.end, x.rows());
    rows += range.size();
  }
  const double flops = product_work(rows, dy.cols(), x.cols());
  const PhaseTimer timer(Phase::Gemm, flops);
  if (!on_cpu(x)) {
    const DeviceWork work(x.device(), name_of_gradients(gradients.size()), {.flops = flops});
    return grouped_weight_matmul(dy, x, ranges, segment_begin, group_begin, gradients);
  }
  grouped_weight_gradient_cpu(dy.f32(), x.f32(), dy.cols(), x.cols(), ranges, segment_begin, group_begin, gradients);
}

void grouped_weight_gradient(const Tensor& dy, const Tensor& x, const Tensor& segment_begin,
                             std::span<const std::int64_t> group_begin, std::span<const GradientSum* const> gradients) {
  if (gradients.empty()) return;
  require(segment_begin.defined() && segment_begin.size() > 0, "weight_gradient: segment_begin is empty");
  check_tensor("weight_gradient", "segment_begin", segment_begin, {segment_begin.size()}, x.device(), DType::I32);
  if (on_cpu(x)) return grouped_weight_gradient(dy, x, bounds_of(segment_begin), group_begin, gradients);
  check_gradients(dy, x, gradients);
  check_bounds("weight_gradient", "group_begin", group_begin, gradients.size(), segment_begin.size() - 1);
  const double flops = product_work(x.rows(), dy.cols(), x.cols());  // at the most
  const PhaseTimer timer(Phase::Gemm, flops);
  const DeviceWork work(x.device(), name_of_gradients(gradients.size()), {.flops = flops});
  grouped_weight_matmul(dy, x, segment_begin, group_begin, gradients);
}

void weight_gradient(const Tensor& dy, const Tensor& x, const GradientSum& gradient) {
  const std::array<std::int64_t, 2> segment = {0, x.rows()};
  const std::array<std::int64_t, 2> group = {0, 1};
  const std::array<const GradientSum*, 1> one = {&gradient};
  grouped_weight_gradient(dy, x, segment, group, one);
}

void add_weight_product(const Tensor& dy, const Tensor& x, RowRange rows, Arena& scratch, Tensor sum) {
  check_tensor("add_weight_product", "sum", sum, {dy.cols(), x.cols()}, x.device());
  if (rows.size() == 0) return;
  const Tensor left = dy.slice(rows.begin, rows.size());
  const Tensor right = x.slice(rows.begin, rows.size());
  if (!on_cpu(x)) return add_weight_matmul(left, right, sum);
  const ArenaScope scope(scratch);
  Tensor transposed = allocate(scratch, {dy.cols(), rows.size()});
  for (std::int64_t r = 0; r < rows.size(); ++r) {
    const float* const from = left.f32() + r * dy.cols();
    for (std::int64_t c = 0; c < dy.cols(); ++c) transposed.f32()[c * rows.size() + r] = from[c];
  }
  PackedMatrix packed;
  packed.pack(right);
  gemm(transposed, packed, sum, /*accumulate=*/true);
}

}  // namespace switchyard
