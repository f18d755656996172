// The router's op against double precision and central differences.
#include "layers/ops/softmax_topk.h"

#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

struct Result {
  std::vector<float> probabilities, weights, log_sum_exp;
  std::vector<std::int32_t> experts;
};

Result run(const std::vector<float>& logits, std::int64_t experts, std::int64_t slots, bool renormalise) {
  const std::int64_t tokens = isize(logits.size()) / experts;
  Result r;
  r.probabilities.resize(usize(tokens * experts));
  r.weights.resize(usize(tokens * slots));
  r.experts.resize(usize(tokens * slots));
  r.log_sum_exp.resize(usize(tokens));
  softmax_topk(view(logits, {tokens, experts}), renormalise, view(r.probabilities, {tokens, experts}),
               view(r.experts, {tokens, slots}), view(r.weights, {tokens, slots}), view(r.log_sum_exp));
  return r;
}

struct Twin {
  std::vector<double> p;
  double lse = 0;
};
Twin softmax(const double* x, std::int64_t n) {
  Twin twin;
  const double max = *std::max_element(x, x + n);
  double sum = 0;
  for (std::int64_t e = 0; e < n; ++e) sum += std::exp(x[e] - max);
  twin.lse = max + std::log(sum);
  for (std::int64_t e = 0; e < n; ++e) twin.p.push_back(std::exp(x[e] - twin.lse));
  return twin;
}

}  // namespace

TEST_CASE("probabilities, chosen experts, weights and log-sum-exp") {
  for (const std::int64_t experts : {1, 2, 7, 8, 10, 33, 64, 1000, 1024}) {
    for (const std::int64_t slots : std::set<std::int64_t>{1, std::min<std::int64_t>(experts, 6), experts}) {
      for (const bool renormalise : {false, true}) {
        const std::int64_t tokens = 65;
        const std::vector<float> logits = random_values(tokens * experts, std::uint64_t(experts), 3);
        const Result r = run(logits, experts, slots, renormalise);
        for (std::int64_t t = 0; t < tokens; ++t) {
          const std::vector<double> x(logits.begin() + t * experts, logits.begin() + (t + 1) * experts);
          const Twin twin = softmax(x.data(), experts);
          const std::vector<float> p(r.probabilities.begin() + t * experts,
                                     r.probabilities.begin() + (t + 1) * experts);
          REQUIRE(worst_error(p, twin.p, 1e-7) < 1e-6);
          REQUIRE(r.log_sum_exp[usize(t)] == Approx(twin.lse).epsilon(1e-6).margin(1e-6));
          std::vector<std::int32_t> order(usize(experts));
          std::iota(order.begin(), order.end(), 0);
          std::stable_sort(order.begin(), order.end(),
                           [&](std::int32_t a, std::int32_t b) { return p[usize(a)] > p[usize(b)]; });
          float sum = 0;
          for (std::int64_t k = 0; k < slots; ++k) sum += p[usize(order[usize(k)])];
          for (std::int64_t k = 0; k < slots; ++k) {
            const std::size_t slot = usize(t * slots + k);
            REQUIRE(r.experts[slot] == order[usize(k)]);
            REQUIRE(r.weights[slot] == (renormalise ? p[usize(order[usize(k)])] / sum : p[usize(order[usize(k)])]));
          }
        }
      }
    }
  }
}

TEST_CASE("ties go to the lower expert") {
  const Result r = run({1, 3, 3, 1, 3, 1}, 6, 5, true);
  CHECK(r.experts == std::vector<std::int32_t>{1, 2, 4, 0, 3});
  // Far below the largest, all probabilities are 0: still the lower ones first.
  CHECK(run({-200, 0, -300, -250}, 4, 3, false).experts == std::vector<std::int32_t>{1, 0, 2});
}

TEST_CASE("huge, infinite and NaN logits end with K different experts, and broken rows show it") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const std::vector<std::vector<float>> rows = {{1e30f, -1e30f, 0, 1},    {inf, 0, 1, 2}, {-inf, 0, -inf, 2},
                                                {-inf, -inf, -inf, -inf}, {0, nan, 1, 2}, {nan, nan, nan, nan}};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const std::int64_t slots : {1, 3, 4}) {
      const Result r = run(rows[i], 4, slots, true);
      const std::set<std::int32_t> chosen(r.experts.begin(), r.experts.end());
      CHECK(chosen.size() == usize(slots));
      CHECK((*chosen.begin() >= 0 && *chosen.rbegin() < 4));
      const bool finite = i == 0 || i == 2;
      CHECK(std::isfinite(r.weights[0]) == finite);
      CHECK(std::isfinite(r.log_sum_exp[0]) == finite);
    }
  }
  CHECK(run(rows[0], 4, 1, false).weights[0] == 1);
  CHECK(run(rows[2], 4, 1, false).experts[0] == 3);
}

TEST_CASE("gradient against central differences") {
  for (const std::int64_t experts : {1, 5, 8, 19}) {
    for (const std::int64_t slots : std::set<std::int64_t>{1, std::min<std::int64_t>(experts, 3), experts}) {
      for (const bool renormalise : {false, true}) {
        const std::int64_t tokens = 9;
        const std::vector<float> logits = random_values(tokens * experts, 1);
        const std::vector<float> dweights = random_values(tokens * slots, 2),
                                 dprobabilities = random_values(experts, 3);
        const std::vector<float> dlse = random_values(tokens, 4);
        const Result r = run(logits, experts, slots, renormalise);
        std::vector<float> dlogits(logits.size());
        softmax_topk_backward(view(dweights, {tokens, slots}), view(dprobabilities), view(dlse),
                              view(r.probabilities, {tokens, experts}), view(r.experts, {tokens, slots}),
                              view(r.weights, {tokens, slots}), renormalise, view(dlogits, {tokens, experts}));
        // What a token's row adds to the loss, its choice of experts held fixed.
        std::vector<double> wanted;
        for (std::int64_t t = 0; t < tokens; ++t) {
          const auto loss = [&](const std::vector<double>& x) {
            const Twin twin = softmax(x.data(), experts);
            double sum = 0, value = dlse[usize(t)] * twin.lse;
            for (std::int64_t k = 0; k < slots; ++k) sum += twin.p[usize(r.experts[usize(t * slots + k)])];
            for (std::int64_t k = 0; k < slots; ++k) {
              const std::size_t slot = usize(t * slots + k);
              value += dweights[slot] * twin.p[usize(r.experts[slot])] / (renormalise ? sum : 1);
            }
            for (std::int64_t e = 0; e < experts; ++e) value += dprobabilities[usize(e)] * twin.p[usize(e)];
            return value;
          };
          std::vector<double> x(logits.begin() + t * experts, logits.begin() + (t + 1) * experts);
          for (std::size_t e = 0; e < x.size(); ++e) wanted.push_back(central_difference(loss, x, e));
        }
        REQUIRE(worst_error(dlogits, wanted, 0.1) < 5e-6);
        dlogits[0] += 1e-4f;  // planted
        REQUIRE(worst_error(dlogits, wanted, 0.1) > 5e-6);
      }
    }
  }
}

TEST_CASE("one result for every vector width and thread count") {
  for (const std::int64_t experts : {7, 8, 16, 61}) {
    const std::int64_t tokens = 200, slots = 3;
    const std::vector<float> logits = random_values(tokens * experts, 5);
    const std::vector<float> dweights = random_values(tokens * slots, 6), dprobabilities = random_values(experts, 7);
    CHECK(one_result([&] {
      const Result r = run(logits, experts, slots, true);
      std::vector<float> all = r.probabilities;
      for (const auto* part : {&r.weights, &r.log_sum_exp}) all.insert(all.end(), part->begin(), part->end());
      for (const std::int32_t expert : r.experts) all.push_back(float(expert));
      std::vector<float> dlogits(logits.size());
      softmax_topk_backward(view(dweights, {tokens, slots}), view(dprobabilities), view(r.log_sum_exp),
                            view(r.probabilities, {tokens, experts}), view(r.experts, {tokens, slots}),
                            view(r.weights, {tokens, slots}), true, view(dlogits, {tokens, experts}));
      all.insert(all.end(), dlogits.begin(), dlogits.end());
      return all;
    }));
  }
}

TEST_CASE("an impossible top_k is told") {
  CHECK_THROWS_WITH(run({1, 2, 3}, 3, 4, false), "softmax_topk: top_k is 4, not in 1 to the number of experts, 3");
  CHECK_THROWS_AS(run({1, 2, 3}, 3, 0, false), Error);
}
