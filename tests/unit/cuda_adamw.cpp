// LABEL slow
// The optimizer's step on a CUDA device is the CPU's, bit for bit, for any number of parts.
#include "comm/device/host_view.h"
#include "layers/ops/adamw.h"
#include "layers/tensor/parameter.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

namespace switchyard::test {
namespace {

struct Result {
  std::vector<float> state;
  std::vector<double> squares;
};

Result run(Device& device, Numerics numerics, std::int64_t parts) {
  std::vector<DeviceTensor> state;
  std::vector<std::unique_ptr<Parameter>> parameters;
  std::vector<AdamWPart> all;
  std::vector<std::vector<double>> sums;
  for (std::int64_t p = 0; p < parts; ++p) {
    const std::int64_t n = p % 7 == 3 ? 0 : 1 + p * p * 131 % 9000;
    const auto seed = static_cast<std::uint64_t>(10 * p + 1);
    parameters.push_back(std::make_unique<Parameter>(device, "p", Shape{n}, Owner{}, p % 2 == 0, numerics));
    const DeviceTensor gradient(device, random_values(n, seed, 0.3), {n});
    add_partial(parameters.back()->gradient(), gradient.get().f32(), n);
    state.emplace_back(device, random_values(n, seed + 1), Shape{n});
    state.emplace_back(device, random_values(n, seed + 2, 0.1), Shape{n});
    std::vector<float> second = random_values(n, seed + 3, 0.1);
    for (float& value : second) value *= value;
    state.emplace_back(device, second, Shape{n});
    const std::size_t at = state.size() - 3;
    all.push_back({.n = n,
                   .gradient = parameters.back()->gradient().plain,
                   .exact = parameters.back()->gradient().exact,
                   .value = state[at].get().f32(),
                   .m = state[at + 1].get().f32(),
                   .v = state[at + 2].get().f32(),
                   .decays = p % 2 == 0});
    sums.emplace_back(usize((n + squares_block - 1) / squares_block));
  }
  std::vector<double*> places;
  for (auto& sum : sums) places.push_back(sum.data());
  squares_by_block(device, 0.7, all, places);
  for (std::int64_t step = 1; step <= 2; ++step) {
    adamw(device, {.lr = 1e-2, .weight_decay = 0.1, .step = step}, 0.7, all);
  }
  Result result;
  for (const DeviceTensor& tensor : state) {
    const auto values = tensor.values();
    result.state.insert(result.state.end(), values.begin(), values.end());
  }
  for (const auto& sum : sums) result.squares.insert(result.squares.end(), sum.begin(), sum.end());
  return result;
}

TEST_CASE("the optimizer's step on a CUDA device") {
  for (const Numerics numerics : {Numerics::Fast, Numerics::Reproducible}) {
    for (const std::int64_t parts : {1, 3, 60}) {
      const Result cuda = run(cuda_device(), numerics, parts);
      const Result cpu = run(cpu_device(), numerics, parts);
      CAPTURE(static_cast<int>(numerics), parts);
      CHECK(same_bits(cuda.state, cpu.state));
      CHECK(worst_error(cuda.squares, cpu.squares, 1e-6) < 1e-6);
    }
  }
}

TEST_CASE("the comparison of optimizers sees a moment that is another") {
  Result one = run(cpu_device(), Numerics::Fast, 3);
  const Result other = run(cpu_device(), Numerics::Fast, 3);
  REQUIRE(same_bits(one.state, other.state));
  one.state.back() = std::nextafter(one.state.back(), 1.0F);
  CHECK_FALSE(same_bits(one.state, other.state));
}

}  // namespace
}  // namespace switchyard::test
