// LABEL slow
// Products of ours by wgmma, by every kind of its tiles, against a twin in double precision, the CPU and mma.sync; and
// the check that a process makes before it relies on them.
#include "comm/device/host_view.h"
#include "layers/ops/grouped_gemm_cuda.h"
#include "layers/ops/wgmma_check.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

#include <array>
#include <cstdlib>

namespace switchyard::test {
namespace {

using cuda::TensorCores;
constexpr std::array all_tiles = {TensorCores::WgmmaSmall, TensorCores::WgmmaLarge, TensorCores::WgmmaWide};

// Null, and told, where there is no wgmma. Where there is, it must pass the check.
Device* hopper() {
  Device& device = cuda_device();
  if (!cuda::has_wgmma(device)) {
    WARN("SKIPPED: " << device.model() << " has no wgmma");
    return nullptr;
  }
  REQUIRE(cuda::uses_wgmma(device));
  return &device;
}

struct Product {
  std::int64_t rows, k, n;
  bool transposed;
  std::vector<float> x, w, start;

  Product(std::int64_t rows_, std::int64_t k_, std::int64_t n_, bool transposed_)
      : rows(rows_), k(k_), n(n_), transposed(transposed_) {
    x = rounded(random_values(rows * k, 1), DType::BF16);
    w = rounded(random_values(2 * k * n, 2), DType::BF16);
    start = random_values(rows * n, 3);
  }
  std::int64_t first_group() const { return rows / 3; }

  // Two groups of rows.
  std::vector<float> by(Device& device, TensorCores cores, bool accumulate, DType out = DType::F32) const {
    const DeviceTensor there(device, x, {rows, k}, DType::BF16);
    const Shape shape = transposed ? Shape{n, k} : Shape{k, n};
    std::array<PackedMatrix, 2> packed;
    std::vector<DeviceTensor> weights;
    for (std::size_t g = 0; g < 2; ++g) {
      const auto begin = w.begin() + isize(g) * k * n;
      const DeviceTensor& weight = weights.emplace_back(device, std::vector<float>(begin, begin + k * n), shape);
      transposed ? packed[g].pack_transposed(weight, DType::BF16) : packed[g].pack(weight, DType::BF16);
    }
    const std::array<const PackedMatrix*, 2> forms = {&packed[0], &packed[1]};
    DeviceTensor y = accumulate ? DeviceTensor(device, start, {rows, n}, out) : DeviceTensor(device, {rows, n}, out);
    cuda::grouped_gemm(there, std::array<std::int64_t, 3>{0, first_group(), rows}, forms, y, accumulate, cores);
    return y.values();
  }
  std::vector<double> twin(bool accumulate) const {
    std::vector<double> y;
    for (std::int64_t i = 0; i < rows; ++i) {
      const float* const weight = w.data() + (i < first_group() ? 0 : k * n);
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = accumulate ? static_cast<double>(start[usize(i * n + j)]) : 0;
        for (std::int64_t p = 0; p < k; ++p) {
          sum += static_cast<double>(x[usize(i * k + p)]) *
                 static_cast<double>(weight[transposed ? j * k + p : p * n + j]);
        }
        y.push_back(sum);
      }
    }
    return y;
  }
};

TEST_CASE("products by wgmma are right, and the same bits by all kinds of tiles") {
  Device* const device = hopper();
  if (device == nullptr) return;
  struct Sizes {
    std::int64_t rows, k, n;
  };
  // Fewer and more steps than stages, parts of tiles along both sides, more wide tiles than the emulation has
  // multiprocessors, and rows of elements that are not aligned.
  for (const auto [rows, k, n] : {Sizes{1, 8, 8}, Sizes{130, 64, 256}, Sizes{140, 296, 520}, Sizes{50, 72, 264},
                                  Sizes{70, 33, 45}, Sizes{5, 257, 129}}) {
    for (const bool transposed : {true, false}) {
      const Product product(rows, k, n, transposed);
      for (const bool accumulate : {false, true}) {
        CAPTURE(rows, k, n, transposed, accumulate);
        const auto twin = product.twin(accumulate);
        const auto small = product.by(*device, TensorCores::WgmmaSmall, accumulate);
        CHECK(worst_error(small, twin, 4) < 1e-5);
        if (rows == 70) CHECK(worst_error(product.by(*device, TensorCores::Mma, accumulate), twin, 4) < 1e-5);
        for (const TensorCores cores : all_tiles) {
          CHECK(same_bits(product.by(*device, cores, accumulate), small));
          if (accumulate) CHECK(worst_error(product.by(*device, cores, true, DType::BF16), twin, 4) < 2e-2);
        }
        auto wrong = small;
        wrong[wrong.size() / 2] += 1e-3F;
        CHECK(worst_error(wrong, twin, 4) > 1e-5);
      }
    }
  }
}

// dW of two groups, of which one has two ranges in one segment and an empty segment.
struct Gradient {
  std::int64_t n, k;

  std::vector<double> by(Device& device, TensorCores cores, Numerics numerics) const {
    constexpr std::int64_t rows = 210;
    const std::array<RowRange, 4> ranges = {{{3, 40}, {120, 187}, {40, 40}, {41, 117}}};
    const std::array<std::int64_t, 4> segments = {0, 2, 3, 4};
    const std::array<std::int64_t, 3> groups = {0, 2, 3};
    const DType dtype = device.kind() == DeviceKind::Cpu ? DType::F32 : DType::BF16;
    const DeviceTensor dy(device, rounded(random_values(rows * n, 5), DType::BF16), {rows, n}, dtype);
    const DeviceTensor x(device, rounded(random_values(rows * k, 6), DType::BF16), {rows, k}, dtype);
    Parameter first(device, "first", {n, k}, {}, true, numerics), second(device, "second", {n, k}, {}, true, numerics);
    const std::array<const GradientSum*, 2> sums = {&first.gradient(), &second.gradient()};
    if (device.kind() == DeviceKind::Cpu) {
      grouped_weight_gradient(dy, x, ranges, segments, groups, sums);
    } else {
      cuda::grouped_weight_gradient(dy, x, ranges, segments, groups, sums, cores);
    }
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
  }
};

TEST_CASE("weight gradients by wgmma are the CPU's, and the same bits by all kinds of tiles") {
  Device* const device = hopper();
  if (device == nullptr) return;
  for (const Gradient& gradient : {Gradient{8, 8}, Gradient{136, 264}, Gradient{264, 72}, Gradient{45, 67}}) {
    const auto wanted = gradient.by(cpu_device(), TensorCores::Best, Numerics::Fast);
    for (const Numerics numerics : {Numerics::Fast, Numerics::Reproducible}) {
      CAPTURE(gradient.n, gradient.k, static_cast<int>(numerics));
      const auto small = gradient.by(*device, TensorCores::WgmmaSmall, numerics);
      CHECK(worst_error(small, wanted, 4) < 1e-5);
      for (const TensorCores cores : all_tiles) CHECK(gradient.by(*device, cores, numerics) == small);
    }
  }
}

TEST_CASE("a process that cannot rely on wgmma finds out") {
  Device* const device = hopper();
  if (device == nullptr) return;
  CHECK(cuda::wgmma_fault(*device).empty());
  if (device->model().find("emulated") == std::string::npos) return;
  ::setenv("CUDA_EMULATION_FAULT", "wgmma", 1);  // it reads operands without the permutation
  CHECK_THAT(cuda::wgmma_fault(*device), Catch::Matchers::Contains("136 rows, 264 columns"));
  ::unsetenv("CUDA_EMULATION_FAULT");
  CHECK(cuda::wgmma_fault(*device).empty());
}

}  // namespace
}  // namespace switchyard::test
