#include "launch/device_rates.h"

#include "comm/device/work.h"
#include "layers/ops/convert.h"
#include "layers/ops/gemm.h"
#include "layers/tensor/random.h"

#include <algorithm>
#include <vector>

namespace switchyard {
namespace {

constexpr int rounds = 10;

// The least time of one call, seconds.
template <class Call>
double least_time(Device& device, const Call& call) {
  call();
  double least = 1e300;
  for (int round = 0; round < rounds; ++round) {
    device.record()->take();
    call();
    const std::vector<WorkTimes> times = device.record()->take();
    least = std::min(least, times.front().seconds);
  }
  return least;
}

// Not zeros, with which a GPU's multipliers save power and run faster than with a model's numbers.
Tensor random_matrix(std::int64_t size, DType dtype, std::uint64_t stream, Arena& arena) {
  const Random random(stream, "bench rates");
  std::vector<float> row(usize(size * size));
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(random.uniform(i)) - 0.5F;
  return converted(upload(arena, std::span<const float>(row)).reshaped({size, size}), dtype, arena);
}

}  // namespace

ProductRate measure_product_rate(Device& device, DType dtype) {
  constexpr std::int64_t largest = 8192;
  ProductRate rate;
  // As large as it must be for a rate, and no larger than it need be where products are slow.
  double seconds = 0;
  for (std::int64_t size = 256; size <= largest && seconds < 1e-3; size *= 2) {
    Arena arena(device);
    const Tensor x = random_matrix(size, dtype, 1, arena);
    const Tensor weight = random_matrix(size, dtype, 2, arena);
    Tensor y = allocate(arena, {size, size}, dtype);
    PackedMatrix packed;
    packed.pack_transposed(weight, dtype);
    seconds = least_time(device, [&] { gemm(x, packed, y); });
    rate.size = size;
    rate.tflops = 2 * static_cast<double>(size * size) * static_cast<double>(size) / seconds * 1e-12;
  }
  return rate;
}

double measure_copy_rate(Device& device) {
  constexpr Bytes size(256 << 20);  // several times what a GPU's cache holds
  const Buffer from(device, size);
  const Buffer to(device, size);
  const double seconds = least_time(device, [&] { device.copy(to.data(), from.data(), size, device.stream()); });
  return 2 * static_cast<double>(size.value()) / seconds * 1e-9;
}

}  // namespace switchyard
