// cuBLAS's products and weight gradients, conversions and exact sums on a CUDA device, against the CPU's. (Products of
// ours: cuda_grouped_gemm.cpp)
#include "comm/device/host_view.h"
#include "layers/ops/convert.h"
#include "layers/ops/gemm.h"
#include "layers/ops/gemm_matmul.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

#include <array>

namespace switchyard::test {
namespace {

// What each dtype of the inputs may miss, relative to the largest sum: both add in fp32.
constexpr double tolerance = 1e-5;

struct Sizes {
  std::int64_t rows, k, n;
};

TEST_CASE("grouped products are the CPU's") {
  Device& cuda = cuda_device();
  std::uint64_t seed = 1;
  for (const auto [rows, k, n] : {Sizes{1, 1, 1}, Sizes{37, 19, 45}, Sizes{64, 128, 96}, Sizes{5, 257, 33}}) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      for (const bool transposed : {true, false}) {
        for (const bool accumulate : {false, true}) {
          constexpr std::int64_t groups = 3;
          const std::vector<std::int64_t> begin = {0, rows / 3, rows / 3, rows};  // one is empty
          const auto x = rounded(random_values(rows * k, ++seed), dtype);
          const auto start = rounded(random_values(rows * n, ++seed), dtype);
          const Shape weight_shape = transposed ? Shape{n, k} : Shape{k, n};
          const DeviceTensor cpu_x(cpu_device(), x, {rows, k});
          const DeviceTensor cuda_x(cuda, x, {rows, k}, dtype);
          DeviceTensor cpu_y(cpu_device(), start, {rows, n});
          DeviceTensor cuda_y(cuda, start, {rows, n}, dtype);
          std::vector<PackedMatrix> cpu_b(groups), cuda_b(groups);
          std::vector<DeviceTensor> weights;
          std::array<const PackedMatrix*, groups> cpu_forms{}, cuda_forms{};
          for (std::size_t g = 0; g < groups; ++g) {
            const auto w = rounded(random_values(k * n, ++seed), dtype);
            const DeviceTensor& on_cpu = weights.emplace_back(cpu_device(), w, weight_shape);
            transposed ? cpu_b[g].pack_transposed(on_cpu) : cpu_b[g].pack(on_cpu);
            const DeviceTensor& on_cuda = weights.emplace_back(cuda, w, weight_shape);
            transposed ? cuda_b[g].pack_transposed(on_cuda, dtype) : cuda_b[g].pack(on_cuda, dtype);
            cpu_forms[g] = &cpu_b[g];
            cuda_forms[g] = &cuda_b[g];
          }
          grouped_gemm(cpu_x, begin, cpu_forms, cpu_y, accumulate);
          grouped_matmul(cuda_x, begin, cuda_forms, cuda_y, accumulate, ProductsBy::Cublas);
          CAPTURE(rows, k, n, name_of(dtype), transposed, accumulate);
          CHECK(worst_error(cuda_y.values(), cpu_y.values(), 4) < (dtype == DType::F32 ? tolerance : 2e-2));
        }
      }
    }
  }
}

// dW of two groups: one of a segment in two ranges and an empty segment, one of two segments.
TEST_CASE("weight gradients are the CPU's, in fp32 and as exact sums") {
  Device& cuda = cuda_device();
  constexpr std::int64_t rows = 29, n = 13, k = 22;
  const std::vector<RowRange> ranges = {{0, 5}, {17, 20}, {5, 5}, {5, 17}, {20, 29}};
  const std::vector<std::int64_t> segments = {0, 2, 3, 4, 5};
  const std::vector<std::int64_t> groups = {0, 2, 4};
  for (const DType dtype : {DType::F32, DType::BF16}) {
    for (const Numerics numerics : {Numerics::Fast, Numerics::Reproducible}) {
      const auto dy = rounded(random_values(rows * n, 5), dtype);
      const auto x = rounded(random_values(rows * k, 6), dtype);
      const auto gradients_on = [&](Device& device, DType as) {
        const DeviceTensor device_dy(device, dy, {rows, n}, as);
        const DeviceTensor device_x(device, x, {rows, k}, as);
        Parameter first(device, "first", {n, k}, {}, true, numerics);
        Parameter second(device, "second", {n, k}, {}, true, numerics);
        const std::array<const GradientSum*, 2> sums = {&first.gradient(), &second.gradient()};
        for (int twice = 0; twice < 2; ++twice) {  // sums go on
          if (device.kind() == DeviceKind::Cuda) {
            grouped_weight_matmul(device_dy, device_x, ranges, segments, groups, sums, ProductsBy::Cublas);
          } else {
            grouped_weight_gradient(device_dy, device_x, ranges, segments, groups, sums);
          }
        }
        CHECK_FALSE(first.non_finite());
        std::vector<double> values;
        for (const GradientSum* sum : sums) {
          if (sum->exact != nullptr) {
            const HostView<std::int64_t> view(device, sum->exact, sum->size);
            for (const std::int64_t value : view.span()) values.push_back(static_cast<double>(value) * 0x1p-50);
          } else {
            const HostView<float> view(device, sum->plain, sum->size);
            for (const float value : view.span()) values.push_back(static_cast<double>(value));
          }
        }
        return values;
      };
      CAPTURE(name_of(dtype), static_cast<int>(numerics));
      CHECK(worst_error(gradients_on(cuda, dtype), gradients_on(cpu_device(), DType::F32), 4) < tolerance);
    }
  }
}

TEST_CASE("partials become the CPU's fixed point, bit for bit, and what does not fit is told") {
  Device& cuda = cuda_device();
  std::vector<float> values = random_values(10'001, 9, 3);
  values[0] = 8191.5F / 64;
  values[1] = -0x1p-50F;
  values[2] = 0x1.8p-50F;
  const auto sums_on = [&](Device& device, const std::vector<float>& partial, bool& non_finite) {
    Parameter parameter(device, "p", {isize(partial.size())}, {}, true, Numerics::Reproducible);
    parameter.set_partials(16);
    const DeviceTensor there(device, partial, {isize(partial.size())});
    add_partial(parameter.gradient(), there.get().f32(), there.get().size());
    add_partial(parameter.gradient(), there.get().f32(), there.get().size() / 2);
    non_finite = parameter.non_finite();
    parameter.clear_non_finite();
    CHECK_FALSE(parameter.non_finite());
    const HostView<std::int64_t> view(device, parameter.gradient().exact, parameter.size());
    return std::vector<std::int64_t>(view.span().begin(), view.span().end());
  };
  bool on_cuda = true, on_cpu_ = true;
  CHECK(sums_on(cuda, values, on_cuda) == sums_on(cpu_device(), values, on_cpu_));
  CHECK_FALSE(on_cuda);
  CHECK_FALSE(on_cpu_);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), 600.0F}) {
    values[7000] = bad;
    CHECK(sums_on(cuda, values, on_cuda) == sums_on(cpu_device(), values, on_cpu_));
    CHECK(on_cuda);
    CHECK(on_cpu_);
  }
}

TEST_CASE("conversions round to the nearest, ties to even") {
  Device& cuda = cuda_device();
  for (const std::int64_t n : {1, 7, 8, 2049, 100'003}) {
    std::vector<float> values = random_values(n, 3, 100);
    values[0] = 0x1.01p0F;  // half-way
    const DeviceTensor exact(cuda, values, {n});
    DeviceTensor half(cuda, {n}, DType::BF16);
    DeviceTensor back(cuda, Shape{n});
    convert(exact, half);
    convert(half, back);
    CHECK(same_bits(half.values(), rounded(values, DType::BF16)));
    CHECK(same_bits(back.values(), half.values()));
    const std::vector<float> before = rounded(random_values(n, 4, 100), DType::BF16);
    const DeviceTensor sum(cuda, before, {n}, DType::BF16);
    add_converted(exact, sum);
    std::vector<float> wanted = rounded(values, DType::BF16);
    for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += before[i];
    CHECK(same_bits(sum.values(), rounded(wanted, DType::BF16)));
    Arena arena(cuda);
    CHECK(converted(exact, DType::F32, arena).raw() == exact.get().raw());
    for (const std::int64_t skipped : {1, 4}) {  // what does not lie where whole vectors do
      if (n <= skipped) continue;
      const DeviceTensor part(cuda, {n - skipped}, DType::BF16);
      convert(exact.get().slice(skipped, n - skipped), part);
      CHECK(same_bits(part.values(), rounded({values.begin() + skipped, values.end()}, DType::BF16)));
    }
  }
}

}  // namespace
}  // namespace switchyard::test
