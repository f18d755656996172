// The router's op on a CUDA device against the CPU's.
#include "layers/ops/softmax_topk.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

struct Result {
  std::vector<float> probabilities, weights, log_sum_exp;
  std::vector<std::int32_t> experts;
};

Result run(Device& device, const std::vector<float>& logits, std::int64_t experts, std::int64_t slots,
           bool renormalise) {
  const std::int64_t tokens = isize(logits.size()) / experts;
  const DeviceTensor x(device, logits, {tokens, experts}), probabilities(device, Shape{tokens, experts});
  const DeviceTensor chosen(device, Shape{tokens, slots}, DType::I32), weights(device, Shape{tokens, slots});
  const DeviceTensor log_sum_exp(device, Shape{tokens});
  softmax_topk(x, renormalise, probabilities, chosen, weights, log_sum_exp);
  return {probabilities.values(), weights.values(), log_sum_exp.values(), chosen.indices()};
}

// The gradient for what `forward` says.
std::vector<float> gradient(Device& device, const Result& forward, std::int64_t experts, std::int64_t slots,
                            bool renormalise) {
  const std::int64_t tokens = isize(forward.log_sum_exp.size());
  const DeviceTensor dweights(device, random_values(tokens * slots, 2), {tokens, slots});
  const DeviceTensor dprobabilities(device, random_values(experts, 3), {experts});
  const DeviceTensor dlog_sum_exp(device, random_values(tokens, 4), {tokens});
  const DeviceTensor probabilities(device, forward.probabilities, {tokens, experts});
  const DeviceTensor chosen(device, forward.experts), weights(device, forward.weights, {tokens, slots});
  const DeviceTensor dlogits(device, Shape{tokens, experts});
  softmax_topk_backward(dweights, dprobabilities, dlog_sum_exp, probabilities, chosen.get().reshaped({tokens, slots}),
                        weights, renormalise, dlogits);
  return dlogits.values();
}

}  // namespace

TEST_CASE("the router's op is the CPU's, forward and backward") {
  Device& device = cuda_device();
  // Experts in a warp's registers of every number, and beyond.
  for (const std::int64_t experts : {1, 2, 7, 8, 33, 64, 100, 200, 1000, 1024, 1025}) {
    for (const std::int64_t slots : std::set<std::int64_t>{1, std::min<std::int64_t>(experts, 8), experts}) {
      if (slots > 100 && experts != 200) continue;
      for (const bool renormalise : {false, true}) {
        CAPTURE(experts, slots, renormalise);
        const std::int64_t tokens = 13;
        const std::vector<float> logits = random_values(tokens * experts, std::uint64_t(experts), 3);
        const Result wanted = run(cpu_device(), logits, experts, slots, renormalise);
        Result got = run(device, logits, experts, slots, renormalise);
        CHECK(worst_error(got.probabilities, wanted.probabilities, 1e-3) < 1e-5);
        CHECK(worst_error(got.log_sum_exp, wanted.log_sum_exp, 1) < 1e-5);
        CHECK(worst_error(got.weights, wanted.weights, 1e-3) < 1e-5);
        CHECK(got.experts == wanted.experts);
        std::vector<float> dlogits = gradient(device, wanted, experts, slots, renormalise);
        const std::vector<float> slopes = gradient(cpu_device(), wanted, experts, slots, renormalise);
        CHECK(worst_error(dlogits, slopes, 1) < 1e-5);
        CHECK(same_bits(dlogits, gradient(device, wanted, experts, slots, renormalise)));
        dlogits.back() += 1e-4F * (1 + std::abs(dlogits.back()));  // planted
        CHECK(worst_error(dlogits, slopes, 1) > 1e-5);
      }
    }
  }
}

TEST_CASE("ties go to the lower expert on a CUDA device") {
  Device& device = cuda_device();
  CHECK(run(device, {1, 3, 3, 1, 3, 1}, 6, 5, true).experts == std::vector<std::int32_t>{1, 2, 4, 0, 3});
  CHECK(run(device, {-200, 0, -300, -250}, 4, 3, false).experts == std::vector<std::int32_t>{1, 0, 2});
  const std::vector<float> even(70, 1.5F);
  CHECK(run(device, even, 70, 3, false).experts == std::vector<std::int32_t>{0, 1, 2});
}

TEST_CASE("huge, infinite and NaN logits end with K different experts on a CUDA device") {
  Device& device = cuda_device();
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const std::vector<std::array<float, 4>> rows = {{1e30F, -1e30F, 0, 1},    {inf, 0, 1, 2}, {-inf, 0, -inf, 2},
                                                  {-inf, -inf, -inf, -inf}, {0, nan, 1, 2}, {nan, nan, nan, nan}};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const std::int64_t slots : {1, 3, 4}) {
      const Result r = run(device, {rows[i].begin(), rows[i].end()}, 4, slots, true);
      const std::set<std::int32_t> chosen(r.experts.begin(), r.experts.end());
      CHECK(chosen.size() == usize(slots));
      CHECK((*chosen.begin() >= 0 && *chosen.rbegin() < 4));
      const bool finite = i == 0 || i == 2;
      for (const float x : r.probabilities) CHECK(std::isfinite(x) == finite);
      for (const float x : r.weights) CHECK(std::isfinite(x) == finite);
      CHECK(std::isfinite(r.log_sum_exp[0]) == finite);
    }
  }
}
