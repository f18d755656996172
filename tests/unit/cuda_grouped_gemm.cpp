// Products of ours on a CUDA device: against a twin in double precision and the CPU's bits, row for row the same
// whatever stands beside a row, with bounds that the host knows or not.
#include "comm/device/host_view.h"
#include "layers/ops/gemm.h"
#include "layers/ops/gemm_matmul.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

namespace switchyard::test {
namespace {

using Bounds = std::vector<std::int64_t>;

// A GPU has more multiprocessors than the emulation: it takes larger products for larger tiles.
bool is_real(const Device& device) {
  return device.model().find("emulated") == std::string::npos;
}

// The weights of some groups, packed for a device.
class Weights {
 public:
  Weights(Device& device, const std::vector<std::vector<float>>& values, std::int64_t k, std::int64_t n, DType dtype,
          bool transposed)
      : memory_(device, joined(values), {isize(values.size()), padded(k * n)}), packed_(values.size()) {
    for (std::size_t g = 0; g < values.size(); ++g) {
      const Tensor weight(memory_.get().slice(isize(g), 1).raw(), DType::F32, transposed ? Shape{n, k} : Shape{k, n},
                          device);
      transposed ? packed_[g].pack_transposed(weight, dtype, Numerics::Reproducible)
                 : packed_[g].pack(weight, dtype, Numerics::Reproducible);
      forms_.push_back(&packed_[g]);
    }
  }
  std::span<const PackedMatrix* const> forms() const { return forms_; }

 private:
  static std::vector<float> joined(const std::vector<std::vector<float>>& values) {
    std::vector<float> all;
    for (const auto& some : values) {
      all.insert(all.end(), some.begin(), some.end());
      all.resize(all.size() + usize(padded(isize(some.size()))) - some.size());
    }
    return all;
  }
  static std::int64_t padded(std::int64_t size) { return (size + 63) / 64 * 64; }  // weights are aligned
  DeviceTensor memory_;
  std::vector<PackedMatrix> packed_;
  std::vector<const PackedMatrix*> forms_;
};

struct Problem {
  std::int64_t rows, k, n;
  Bounds begin;
  bool transposed;
  DType dtype;
  std::vector<float> x, start;
  std::vector<std::vector<float>> weights;

  Problem(std::int64_t rows_, std::int64_t k_, std::int64_t n_, Bounds begin_, bool transposed_, DType dtype_)
      : rows(rows_), k(k_), n(n_), begin(std::move(begin_)), transposed(transposed_), dtype(dtype_) {
    x = rounded(random_values(rows * k, 1), dtype);
    start = rounded(random_values(rows * n, 2), dtype);
    for (std::size_t g = 0; g + 1 < begin.size(); ++g) weights.push_back(rounded(random_values(k * n, 3 + g), dtype));
  }

  // y, from `start` where it is added to, else from NaN. device_bounds: the host does not tell them.
  std::vector<float> on(Device& device, DType out, bool accumulate, bool device_bounds = false) const {
    const DType in = on_the_cpu(device) ? DType::F32 : dtype;
    const Weights b(device, weights, k, n, in, transposed);
    const DeviceTensor there(device, x, {rows, k}, in);
    DeviceTensor y = accumulate ? DeviceTensor(device, start, {rows, n}, out) : DeviceTensor(device, {rows, n}, out);
    if (device_bounds) {
      const DeviceTensor row_begin(device, std::vector<std::int32_t>(begin.begin(), begin.end()));
      grouped_gemm(there, row_begin, b.forms(), y, accumulate);
    } else {
      grouped_gemm(there, begin, b.forms(), y, accumulate);
    }
    return y.values();
  }
  static bool on_the_cpu(const Device& device) { return device.kind() == DeviceKind::Cpu; }

  // Rows of no group stay what they were.
  std::vector<double> twin(bool accumulate) const {
    std::vector<double> y(usize(rows * n), std::numeric_limits<double>::quiet_NaN());
    if (accumulate) std::copy(start.begin(), start.end(), y.begin());
    for (std::size_t g = 0; g < weights.size(); ++g) {
      for (std::int64_t r = begin[g]; r < begin[g + 1]; ++r) {
        for (std::int64_t c = 0; c < n; ++c) {
          double sum = accumulate ? static_cast<double>(start[usize(r * n + c)]) : 0;
          for (std::int64_t p = 0; p < k; ++p) {
            sum += static_cast<double>(x[usize(r * k + p)]) *
                   static_cast<double>(weights[g][usize(transposed ? c * k + p : p * n + c)]);
          }
          y[usize(r * n + c)] = sum;
        }
      }
    }
    return y;
  }
};

// The largest relative error of those that belong to a group; infinity where one that does not was touched.
double error_of(const std::vector<float>& got, const std::vector<double>& twin) {
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(twin[i]) && std::isnan(got[i])) continue;
    const double error = std::abs(static_cast<double>(got[i]) - twin[i]) / (std::abs(twin[i]) + 4);
    worst = error <= worst ? worst : std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
  }
  return worst;
}

std::vector<Bounds> bounds_of(std::int64_t rows) {
  Bounds many = {0};
  for (std::int64_t g = 1; g <= 70; ++g) many.push_back(g % 3 == 0 ? many.back() : rows * g / 70);
  return {{0, rows}, {rows / 5, rows / 5, rows / 2, rows - rows / 8, rows - rows / 8}, many};
}

TEST_CASE("products of groups are right in every shape, layout and type") {
  Device& cuda = cuda_device();
  struct Sizes {
    std::int64_t rows, k, n;
    std::size_t kind;  // of bounds
  };
  // Aligned and odd ones, of small, large and wide tiles; more groups than lanes.
  std::vector<Sizes> sizes = {{1, 1, 1, 0},    {37, 19, 45, 1},   {300, 72, 136, 0}, {420, 40, 200, 1},
                              {90, 24, 40, 2}, {130, 33, 129, 1}, {900, 24, 200, 0}};
  if (is_real(cuda)) sizes.insert(sizes.end(), {{6000, 72, 1024, 1}, {9000, 24, 1024, 0}});
  for (const auto [rows, k, n, kind] : sizes) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      for (const bool transposed : {true, false}) {
        const Problem problem(rows, k, n, bounds_of(rows)[kind], transposed, dtype);
        for (const bool accumulate : {false, true}) {
          CAPTURE(rows, k, n, kind, name_of(dtype), transposed, accumulate);
          const auto twin = problem.twin(accumulate);
          auto y = problem.on(cuda, DType::F32, accumulate);
          CHECK(error_of(y, twin) < 1e-5);
          // One order of sums for all who add one after the other: the CPU, and the emulated tensor cores, too.
          if (dtype == DType::F32) CHECK(same_bits(y, problem.on(cpu_device(), DType::F32, accumulate)));
          CHECK(same_bits(y, problem.on(cuda, DType::F32, accumulate, /*device_bounds=*/true)));
          if (dtype == DType::BF16) CHECK(error_of(problem.on(cuda, DType::BF16, accumulate), twin) < 2e-2);
          y[y.size() / 2] += 1e-3F;  // a fault, where a group has the middle
          CHECK(error_of(y, twin) > 1e-5);
        }
      }
    }
  }
}

TEST_CASE("bounds outside the rows are cut, and no rows give nothing") {
  Device& cuda = cuda_device();
  Problem problem(20, 16, 24, {0, 12, 20}, true, DType::BF16);
  const auto wanted = problem.on(cuda, DType::F32, false);
  problem.begin = {-5, 12, 300};
  CHECK(same_bits(problem.on(cuda, DType::F32, false, /*device_bounds=*/true), wanted));
  problem.begin = {7, 7, 7};
  const auto untouched = problem.on(cuda, DType::F32, false, /*device_bounds=*/true);
  CHECK(std::all_of(untouched.begin(), untouched.end(), [](float v) { return std::isnan(v); }));
}

// Row `row` of a product whose group has `before` rows before it and `after` behind, and stands after another group.
std::vector<float> row_among(Device& device, const std::vector<float>& row, const std::vector<float>& weight,
                             std::int64_t before, std::int64_t after, std::int64_t other, DType dtype, std::int64_t n) {
  const std::int64_t k = isize(row.size()), rows = other + before + 1 + after;
  std::vector<float> x = rounded(random_values(rows * k, static_cast<std::uint64_t>(rows)), dtype);
  std::copy(row.begin(), row.end(), x.begin() + (other + before) * k);
  const Weights b(device, {rounded(random_values(k * n, 5), dtype), weight}, k, n, dtype, true);
  const DeviceTensor there(device, x, {rows, k}, dtype);
  const DeviceTensor y(device, Shape{rows, n});
  grouped_gemm(there, Bounds{0, other, rows}, b.forms(), y);
  const auto all = y.values();
  return {all.begin() + (other + before) * n, all.begin() + (other + before + 1) * n};
}

TEST_CASE("a row has the same bits whatever stands beside it") {
  Device& cuda = cuda_device();
  for (const std::int64_t k : {72, 45}) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      constexpr std::int64_t n = 136;
      const auto row = rounded(random_values(k, 1), dtype), weight = rounded(random_values(k * n, 2), dtype);
      const auto alone = row_among(cuda, row, weight, 0, 0, 0, dtype, n);
      CAPTURE(k, name_of(dtype));
      CHECK(same_bits(row_among(cuda, row, weight, 0, 1, 0, dtype, n), alone));
      CHECK(same_bits(row_among(cuda, row, weight, 5, 2, 3, dtype, n), alone));
      CHECK(same_bits(row_among(cuda, row, weight, 129, 1, 64, dtype, n), alone));
      CHECK(same_bits(row_among(cuda, row, weight, 100, 200, 0, dtype, n), alone));
      CHECK(same_bits(row_among(cuda, row, weight, 600, 300, 0, dtype, n), alone));
      if (is_real(cuda)) {
        CHECK(same_bits(row_among(cuda, row, weight, 9000, 300, 0, dtype, n), alone));
        CHECK(same_bits(row_among(cuda, row, weight, 40'000, 1, 70, dtype, n), alone));
      }
      // A sum in another order is found out.
      auto turned_row = row;
      auto turned_weight = weight;
      std::reverse(turned_row.begin(), turned_row.end());
      for (std::int64_t c = 0; c < n; ++c) {
        std::reverse(turned_weight.begin() + c * k, turned_weight.begin() + (c + 1) * k);
      }
      CHECK_FALSE(same_bits(row_among(cuda, turned_row, turned_weight, 0, 0, 0, dtype, n), alone));
    }
  }
}

// Gradients of several weights: what the sums hold after two calls, in units of 2^-50 where they are exact.
struct Gradients {
  std::int64_t rows, n, k;
  std::vector<RowRange> ranges;
  Bounds segments, groups;
  DType dtype;

  std::vector<double> on(Device& device, Numerics numerics, bool device_bounds = false, float poison = 0) const {
    const DType as = device.kind() == DeviceKind::Cpu ? DType::F32 : dtype;
    auto dy_values = rounded(random_values(rows * n, 5), dtype);
    if (poison != 0) dy_values[usize(ranges.front().begin * n)] = poison;
    const DeviceTensor dy(device, dy_values, {rows, n}, as);
    const DeviceTensor x(device, rounded(random_values(rows * k, 6), dtype), {rows, k}, as);
    const std::int64_t count = isize(groups.size()) - 1;
    Parameter all(device, "w", {count * n * k}, {}, true, numerics);
    std::vector<GradientSum> parts;
    for (std::int64_t g = 0; g < count; ++g) parts.push_back(all.gradient().part(g * n * k, n * k));
    std::vector<const GradientSum*> sums;
    for (const GradientSum& part : parts) sums.push_back(&part);
    for (int twice = 0; twice < 2; ++twice) {
      if (device_bounds) {
        std::vector<std::int32_t> begin;
        for (const RowRange& range : ranges) begin.push_back(static_cast<std::int32_t>(range.begin));
        begin.push_back(static_cast<std::int32_t>(ranges.back().end));
        const DeviceTensor there(device, begin);
        grouped_weight_gradient(dy, x, there, groups, sums);
      } else {
        grouped_weight_gradient(dy, x, ranges, segments, groups, sums);
      }
    }
    CHECK(all.non_finite() == (poison != 0));
    std::vector<double> values;
    const GradientSum& sum = all.gradient();
    if (sum.exact != nullptr) {
      const HostView<std::int64_t> view(device, sum.exact, sum.size);
      for (const std::int64_t value : view.span()) values.push_back(static_cast<double>(value) * 0x1p-50);
    } else {
      const HostView<float> view(device, sum.plain, sum.size);
      for (const float value : view.span()) values.push_back(static_cast<double>(value));
    }
    return values;
  }
};

TEST_CASE("weight gradients of groups are the CPU's, as exact sums to the bit") {
  Device& cuda = cuda_device();
  // Several ranges a segment, several segments a group, empty ones of all kinds; odd sizes, small and large tiles.
  const std::vector<RowRange> scattered = {{0, 5}, {37, 50}, {5, 5}, {5, 37}, {50, 90}};
  std::vector<std::pair<std::int64_t, std::int64_t>> sizes = {{13, 22}, {72, 40}, {136, 160}, {129, 66}};
  if (is_real(cuda)) sizes.emplace_back(1024, 1280);
  for (const auto& [n, k] : sizes) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      const Gradients gradients{90, n, k, scattered, {0, 2, 3, 4, 5}, {0, 2, 2, 4}, dtype};
      CAPTURE(n, k, name_of(dtype));
      auto exact = gradients.on(cuda, Numerics::Reproducible);
      // The emulated tensor cores add one after the other, as the CPU does; a GPU's add 16 at a time.
      const auto wanted = gradients.on(cpu_device(), Numerics::Reproducible);
      if (dtype == DType::F32) {
        CHECK(exact == wanted);
      } else {
        CHECK(worst_error(exact, wanted, 4) < 1e-5);
      }
      exact[exact.size() - 1] += 0x1p-40;
      CHECK(exact != wanted);
      auto plain = gradients.on(cuda, Numerics::Fast);
      CHECK(worst_error(plain, wanted, 4) < 1e-5);
      plain[0] += 1e-3;
      CHECK(worst_error(plain, wanted, 4) > 1e-5);
    }
  }
}

TEST_CASE("weight gradients whose bounds the device alone knows are the same") {
  Device& cuda = cuda_device();
  for (const Numerics numerics : {Numerics::Reproducible, Numerics::Fast}) {
    const Gradients gradients{60,        24,         40, {{3, 3}, {3, 20}, {20, 21}, {21, 57}}, {0, 1, 2, 3, 4},
                              {0, 2, 4}, DType::BF16};
    CHECK(gradients.on(cuda, numerics, /*device_bounds=*/true) == gradients.on(cuda, numerics));
    CHECK(gradients.on(cpu_device(), numerics, /*device_bounds=*/true) == gradients.on(cpu_device(), numerics));
  }
}

TEST_CASE("a partial that does not fit is left out and told") {
  Device& cuda = cuda_device();
  const Gradients gradients{30, 24, 16, {{0, 10}, {10, 30}}, {0, 1, 2}, {0, 1, 2}, DType::F32};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), 1e6F}) {
    CHECK(gradients.on(cuda, Numerics::Reproducible, false, bad) ==
          gradients.on(cpu_device(), Numerics::Reproducible, false, bad));
  }
}

TEST_CASE("a chain over rows that come in several calls is the chain over all of them") {
  Device& cuda = cuda_device();
  constexpr std::int64_t rows = 80, n = 40, k = 24;
  for (const DType dtype : {DType::F32, DType::BF16}) {
    const DeviceTensor dy(cuda, rounded(random_values(rows * n, 5), dtype), {rows, n}, dtype);
    const DeviceTensor x(cuda, rounded(random_values(rows * k, 6), dtype), {rows, k}, dtype);
    Arena scratch(cuda);
    const auto in_calls = [&](const Bounds& cuts) {
      const DeviceTensor sum(cuda, std::vector<float>(usize(n * k)), {n, k});
      for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        add_weight_product(dy, x, {cuts[i], cuts[i + 1]}, scratch, sum);
      }
      return sum.get().defined() ? sum.values() : std::vector<float>();
    };
    const auto whole = in_calls({0, rows});
    CHECK(same_bits(in_calls({0, 16, 16, 64, rows}), whole));
    if (dtype == DType::F32) CHECK(same_bits(in_calls({0, 7, 45, rows}), whole));
    CHECK_FALSE(same_bits(in_calls({16, rows, rows}), whole));
  }
}

TEST_CASE("more groups than a launch's arguments hold") {
  Device& cuda = cuda_device();
  constexpr std::int64_t groups = 400;
  Bounds begin = {0};
  for (std::int64_t g = 0; g < groups; ++g) begin.push_back(begin.back() + (g % 97 == 0 ? 3 : 0));
  const Problem problem(begin.back(), 8, 8, begin, true, DType::F32);
  CHECK(same_bits(problem.on(cuda, DType::F32, false), problem.on(cpu_device(), DType::F32, false)));
  Gradients gradients{begin.back(), 8, 4, {}, {0}, {0}, DType::F32};
  for (std::size_t g = 0; g < usize(groups); ++g) {
    gradients.ranges.push_back({begin[g], begin[g + 1]});
    gradients.segments.push_back(isize(g) + 1);
    gradients.groups.push_back(isize(g) + 1);
  }
  const auto wanted = gradients.on(cpu_device(), Numerics::Reproducible);
  CHECK(gradients.on(cuda, Numerics::Reproducible) == wanted);
  CHECK(gradients.on(cuda, Numerics::Reproducible, /*device_bounds=*/true) == wanted);
  CHECK(same_bits(problem.on(cuda, DType::F32, false, /*device_bounds=*/true), problem.on(cuda, DType::F32, false)));
}

TEST_CASE("a segment of more ranges than a launch's arguments hold") {
  Device& cuda = cuda_device();
  Gradients gradients{900, 8, 4, {}, {0, 450, 900}, {0, 1, 2}, DType::F32};
  for (std::int64_t r = 0; r < gradients.rows; ++r) gradients.ranges.push_back({r, r + 1});
  CHECK(gradients.on(cuda, Numerics::Reproducible) == gradients.on(cpu_device(), Numerics::Reproducible));
}

}  // namespace
}  // namespace switchyard::test
