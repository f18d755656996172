// The loss and its gradients on a CUDA device against the CPU's.
#include "comm/reduce/exact.h"
#include "layers/ops/cross_entropy.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

// T tokens, V vocabulary, D width.
struct Problem {
  std::int64_t tokens, vocabulary, width;
  std::vector<float> hidden, weight;
  std::vector<std::int32_t> targets;
  float scale = 0.25F;

  Problem(std::int64_t t, std::int64_t v, std::int64_t d, DType dtype) : tokens(t), vocabulary(v), width(d) {
    hidden = rounded(random_values(t * d, 1), dtype);
    weight = rounded(random_values(v * d, 2, 2 / std::sqrt(double(d))), dtype);
    targets = random_indices(t, v, 3);
    for (std::size_t i = 2; i < targets.size(); i += 7) targets[i] = -1;  // not counted
  }
};

struct Result {
  std::vector<float> losses, dhidden, dweight;
  bool non_finite = false;
};

Result run(Device& device, const Problem& p, Numerics numerics, DType dtype) {
  const DeviceTensor hidden(device, p.hidden, {p.tokens, p.width}, dtype), targets(device, p.targets);
  const DeviceTensor losses(device, Shape{p.tokens}), dhidden(device, Shape{p.tokens, p.width}, dtype);
  Parameter parameter(device, "head", {p.vocabulary, p.width}, Owner{}, true, numerics, dtype);
  device.copy_from_host(parameter.value().raw(), p.weight.data(), Bytes(parameter.size() * 4), device.stream());
  PackedMatrix forward, backward;
  forward.pack_transposed(parameter.value(), dtype);
  backward.pack(parameter.value(), dtype);
  Arena scratch(device);
  cross_entropy_and_backward(hidden, forward, backward, targets, p.scale, scratch, losses, dhidden,
                             parameter.gradient());
  CHECK(scratch.in_use() == Bytes(0));
  const DeviceKind kind = device.kind();
  const std::int64_t told = cross_entropy_scratch(p.tokens, p.vocabulary, p.width, numerics, kind, dtype).value();
  CHECK(scratch.peak().value() >= told);
  CHECK(scratch.peak().value() < told + 1024);

  Result r{losses.values(), dhidden.values(), std::vector<float>(p.weight.size()), parameter.non_finite()};
  if (numerics == Numerics::Reproducible) {
    std::vector<std::int64_t> sums(p.weight.size());
    device.copy_to_host(sums.data(), parameter.gradient().exact, Bytes(parameter.size() * 8), device.stream());
    exact_to_float(sums.data(), parameter.size(), 1.0, r.dweight.data());
  } else {
    device.copy_to_host(r.dweight.data(), parameter.gradient().plain, Bytes(parameter.size() * 4), device.stream());
  }
  if (p.tokens > 1000) return r;  // a long one, for an emulated device
  const DeviceTensor losses_alone(device, Shape{p.tokens});
  cross_entropy(hidden, forward, targets, scratch, losses_alone);
  CHECK(same_bits(losses_alone.values(), r.losses));
  return r;
}

}  // namespace

TEST_CASE("losses and gradients are the CPU's") {
  Device& device = cuda_device();
  // Rows in whole vectors and not, shorter than a block of threads and several times as long.
  for (const auto& [t, v, d] : {std::array{1, 1, 1}, std::array{5, 3, 2}, std::array{33, 300, 17},
                                std::array{9, 4104, 8}, std::array{4, 20000, 8}, std::array{6, 9001, 3}}) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      for (const Numerics numerics : {Numerics::Reproducible, Numerics::Fast}) {
        CAPTURE(t, v, d, name_of(dtype));
        const Problem problem(t, v, d, dtype);
        const Result wanted = run(cpu_device(), problem, numerics, DType::F32);
        Result got = run(device, problem, numerics, dtype);
        const double tolerance = dtype == DType::F32 ? 1e-5 : 2e-2;
        CHECK(worst_error(got.losses, wanted.losses, 1) < tolerance);
        CHECK(worst_error(got.dhidden, wanted.dhidden, 0.5) < tolerance);
        CHECK(worst_error(got.dweight, wanted.dweight, 0.5) < tolerance);
        CHECK_FALSE(got.non_finite);
        got.dweight.back() += 0.05F;  // planted
        CHECK(worst_error(got.dweight, wanted.dweight, 0.5) > tolerance);
      }
    }
  }
}

TEST_CASE("several chunks of rows give one partial") {
  Device& device = cuda_device();
  const Problem problem(4100, 6, 3, DType::F32);  // 4,096 rows a chunk
  const Result wanted = run(cpu_device(), problem, Numerics::Reproducible, DType::F32);
  const Result got = run(device, problem, Numerics::Reproducible, DType::F32);
  CHECK(worst_error(got.losses, wanted.losses, 1) < 1e-5);
  CHECK(worst_error(got.dhidden, wanted.dhidden, 0.5) < 1e-5);
  CHECK(worst_error(got.dweight, wanted.dweight, 1) < 2e-5);
}

TEST_CASE("a NaN or an infinity anywhere in a row shows in its loss on a CUDA device") {
  Device& device = cuda_device();
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Problem problem(8, 50, 4, DType::F32);
    problem.targets.assign(8, 7);
    problem.weight[4 * 33] = bad;
    const Result r = run(device, problem, Numerics::Reproducible, DType::F32);
    CHECK(r.non_finite);
    for (std::size_t t = 0; t < 8; ++t) {
      const bool below = std::isinf(bad) && problem.hidden[t * 4] < 0;  // a probability of 0
      CHECK(std::isfinite(r.losses[t]) == below);
    }
  }
}

TEST_CASE("a target beyond the vocabulary is told before it goes to a device, and gives NaN there") {
  Device& device = cuda_device();
  Problem problem(20, 16, 4, DType::F32);
  problem.targets[11] = 16;
  const Result r = run(device, problem, Numerics::Fast, DType::F32);
  for (std::size_t t = 0; t < 20; ++t) CHECK(std::isnan(r.losses[t]) == (t == 11));
  CHECK_THROWS_WITH(check_targets(problem.targets, 16), "target 16 at position 11 is beyond the vocabulary of 16");
  problem.targets[11] = 15;
  CHECK_NOTHROW(check_targets(problem.targets, 16));
}
