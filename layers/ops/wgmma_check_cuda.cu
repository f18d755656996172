#include "comm/device/kernel.cuh"
#include "layers/ops/gemm.h"
#include "layers/ops/grouped_gemm_cuda.h"
#include "layers/ops/wgmma_check.h"

#include <array>
#include <vector>

#include <fmt/core.h>

namespace switchyard::cuda {
namespace {

struct Sizes {
  std::int64_t rows, n, k;
};

std::vector<int> small_integers(std::int64_t count, unsigned state) {
  std::vector<int> values(usize(count));
  for (int& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<int>(state >> 16) % 7 - 3;
  }
  return values;
}

// sum[i, j] = sum over p of a[i, p] b[j, p]
std::vector<int> product(const std::vector<int>& a, const std::vector<int>& b, std::int64_t length) {
  std::vector<int> sums;
  sums.reserve(a.size() * b.size() / usize(length * length));
  for (auto i = a.begin(); i != a.end(); i += length) {
    for (auto j = b.begin(); j != b.end(); j += length) {
      int sum = 0;
      for (std::int64_t p = 0; p < length; ++p) sum += i[p] * j[p];
      sums.push_back(sum);
    }
  }
  return sums;
}

std::vector<int> transposed(const std::vector<int>& matrix, std::int64_t columns) {
  const std::int64_t rows = isize(matrix.size()) / columns;
  std::vector<int> result(matrix.size());
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) result[usize(j * rows + i)] = matrix[usize(i * columns + j)];
  }
  return result;
}

Tensor on_device(Arena& arena, const std::vector<int>& matrix, std::int64_t columns) {
  std::vector<std::uint16_t> bits;
  for (const int value : matrix) bits.push_back(__bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(value))));
  const Tensor there = allocate(arena, {isize(matrix.size()) / columns, columns}, DType::BF16);
  Device& device = arena.device();
  device.copy_from_host(there.raw(), bits.data(), Bytes(isize(bits.size() * sizeof(bits[0]))), device.stream());
  return there;
}

bool holds(const Tensor& result, const std::vector<int>& sums) {
  std::vector<float> values(sums.size());
  Device& device = result.device();
  device.copy_to_host(values.data(), result.raw(), Bytes(isize(values.size() * sizeof(float))), device.stream());
  return std::equal(sums.begin(), sums.end(), values.begin(),
                    [](int sum, float value) { return static_cast<float>(sum) == value; });
}

std::string fault_of(Arena& arena, const Sizes& sizes, TensorCores cores) {
  const ArenaScope scope(arena);
  Device& device = arena.device();
  const auto x = small_integers(sizes.rows * sizes.k, 1), w = small_integers(sizes.n * sizes.k, 2);
  const Tensor x_there = on_device(arena, x, sizes.k);
  const Tensor y_there = allocate(arena, {sizes.rows, sizes.n});
  const auto wrong = [&](const char* what) {
    return fmt::format("{} of {} rows, {} columns and {} positions", what, sizes.rows, sizes.n, sizes.k);
  };
  const std::vector<int> y = product(x, w, sizes.k);
  const std::array<std::int64_t, 2> all = {0, sizes.rows};
  for (const bool by_lines : {true, false}) {
    PackedMatrix packed;
    const Tensor weight = by_lines ? on_device(arena, w, sizes.k) : on_device(arena, transposed(w, sizes.k), sizes.n);
    by_lines ? packed.pack_transposed(weight, DType::BF16) : packed.pack(weight, DType::BF16);
    const std::array<const PackedMatrix*, 1> weights = {&packed};
    device.fill(y_there.raw(), 0xff, Bytes(y_there.size() * size_of(DType::F32)), device.stream());
    grouped_gemm(x_there, all, weights, y_there, false, cores);
    if (!holds(y_there, y)) return wrong(by_lines ? "a product" : "a data gradient");
  }

  const auto dy = small_integers(sizes.rows * sizes.n, 3);
  const Tensor dw_there = allocate(arena, {sizes.n, sizes.k});
  device.fill(dw_there.raw(), 0, Bytes(dw_there.size() * size_of(DType::F32)), device.stream());
  GradientSum sum;
  sum.size = dw_there.size();
  sum.device = &device;
  sum.plain = dw_there.f32();
  const std::array<const GradientSum*, 1> sums = {&sum};
  const std::array<RowRange, 1> range = {{{0, sizes.rows}}};
  const std::array<std::int64_t, 2> one = {0, 1};
  grouped_weight_gradient(on_device(arena, dy, sizes.n), x_there, range, one, one, sums, cores);
  if (!holds(dw_there, product(transposed(dy, sizes.n), transposed(x, sizes.k), sizes.rows))) {
    return wrong("a weight gradient");
  }
  return {};
}

}  // namespace

std::string wgmma_fault(Device& device) {
  Arena arena(device);
  // More than a tile along both sides of a result, and more steps than stages of shared memory.
  for (const TensorCores cores : {TensorCores::WgmmaSmall, TensorCores::WgmmaLarge, TensorCores::WgmmaWide}) {
    if (std::string fault = fault_of(arena, {136, 264, 272}, cores); !fault.empty()) return fault;
  }
  return fault_of(arena, {69, 67, 73}, TensorCores::WgmmaSmall);  // elements are copied one by one
}

}  // namespace switchyard::cuda
