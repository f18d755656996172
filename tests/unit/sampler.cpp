// Sampling and the learning-rate schedule: small pure functions, against what they promise.
#include "trainer/loop/sampler.h"

#include "comm/base/ids.h"
#include "tests/support/catch.h"
#include "trainer/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

using namespace switchyard;

namespace {

const std::vector<float> logits = {0.0F, 2.0F, -1.0F, 1.0F, 2.0F, -30.0F};  // tokens 1 and 4 tie

std::map<std::int32_t, double> shares(const SamplerSettings& settings, std::uint64_t seed = 1, int draws = 20000) {
  const Random random(seed, "test");
  std::map<std::int32_t, double> share;
  for (int i = 0; i < draws; ++i) share[sample(logits, settings, random, static_cast<std::uint64_t>(i))] += 1.0 / draws;
  return share;
}

// The largest difference from softmax(logits / temperature) over `allowed`.
double distance(const std::map<std::int32_t, double>& got, const std::vector<std::int32_t>& allowed,
                double temperature) {
  double total = 0;
  for (const std::int32_t token : allowed) total += std::exp(static_cast<double>(logits[usize(token)]) / temperature);
  double worst = 0;
  double seen = 0;
  for (const std::int32_t token : allowed) {
    const double wanted = std::exp(static_cast<double>(logits[usize(token)]) / temperature) / total;
    const auto found = got.find(token);
    const double share = found == got.end() ? 0 : found->second;
    worst = std::max(worst, std::abs(share - wanted));
    seen += share;
  }
  return std::max(worst, std::abs(1 - seen));  // nothing else was drawn
}

}  // namespace

TEST_CASE("temperature 0 takes the likeliest, ties to the lower number") {
  CHECK(shares({.temperature = 0}).size() == 1);
  CHECK(shares({.temperature = 0}).begin()->first == 1);
  CHECK(shares({.temperature = 1, .top_k = 1}).size() == 1);
  CHECK(shares({.temperature = 1, .top_k = 1}).begin()->first == 1);
  CHECK(shares({.temperature = 1, .top_p = 0}).begin()->first == 1);
}

TEST_CASE("draws follow the distribution, cut as asked") {
  const std::vector<std::int32_t> all = {0, 1, 2, 3, 4, 5};
  for (const double temperature : {0.5, 1.0, 2.0}) {
    CHECK(distance(shares({.temperature = temperature}), all, temperature) < 0.02);
    CHECK(distance(shares({.temperature = temperature, .top_k = 3}), {1, 4, 3}, temperature) < 0.02);
  }
  CHECK(distance(shares({.temperature = 1, .top_k = 100}), all, 1) < 0.02);
  // At temperature 1 the shares are 0.377, 0.377, 0.139, 0.051, 0.019: two reach 0.7, three reach 0.8.
  CHECK(distance(shares({.temperature = 1, .top_p = 0.7}), {1, 4}, 1) < 0.02);
  CHECK(distance(shares({.temperature = 1, .top_p = 0.8}), {1, 4, 3}, 1) < 0.02);
  CHECK(distance(shares({.temperature = 1}), {1, 4, 3}, 1) > 0.02);  // the measure sees a cut that is not there
}

TEST_CASE("a draw is a function of seed and index") {
  CHECK(shares({.temperature = 1}, 1, 500) == shares({.temperature = 1}, 1, 500));
  CHECK(shares({.temperature = 1}, 1, 500) != shares({.temperature = 1}, 2, 500));
}

TEST_CASE("the learning rate: linear warm-up, half a cosine, and its ends") {
  TrainConfig train;
  train.steps = 101;
  train.lr = 2;
  train.warmup_steps = 10;
  train.min_lr_ratio = 0.1;
  CHECK(learning_rate(train, 0) == Approx(0.2));
  CHECK(learning_rate(train, 9) == Approx(2));
  CHECK(learning_rate(train, 10) == Approx(2));
  CHECK(learning_rate(train, 55) == Approx(1.1));  // half-way
  CHECK(learning_rate(train, 100) == Approx(0.2));
  CHECK(learning_rate(train, 500) == Approx(0.2));
  for (std::int64_t step = 11; step <= 100; ++step) CHECK(learning_rate(train, step) < learning_rate(train, step - 1));
  train.warmup_steps = 0;
  CHECK(learning_rate(train, 0) == Approx(2));
  train.steps = train.warmup_steps = 5;
  CHECK(learning_rate(train, 4) == Approx(2));
  train.steps = 1;
  train.warmup_steps = 0;
  CHECK(std::isfinite(learning_rate(train, 0)));
}
