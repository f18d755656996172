// Which losses are spikes, against a plain formula.
#include "trainer/loop/spike_guard.h"

#include "comm/base/error.h"
#include "tests/support/catch.h"

#include <cmath>
#include <random>

namespace switchyard {

TEST_CASE("a spike lies far above the mean of the window") {
  const SpikeGuard guard(3, 4);
  const std::vector<double> losses = {2, 4, 2, 4};  // mean 3, deviation 1
  CHECK(*guard.score(7, losses) == Approx(4));
  CHECK(guard.is_spike(6.1, losses));
  CHECK_FALSE(guard.is_spike(5.9, losses));
  CHECK_FALSE(guard.is_spike(6, losses));                          // 3 deviations are not more than 3
  CHECK_FALSE(guard.is_spike(-50, losses));                        // downwards is no harm
  CHECK_FALSE(guard.is_spike(1e9, std::vector<double>{2, 4, 2}));  // too few
  CHECK(guard.is_spike(7, std::vector<double>{1e6, 2, 4, 2, 4}));  // the last ones count
}

TEST_CASE("a flat curve has a deviation of 1 % of its mean") {
  const SpikeGuard guard(5, 3);
  const std::vector<double> flat = {2, 2, 2};
  CHECK_FALSE(guard.is_spike(2.09, flat));
  CHECK(guard.is_spike(2.11, flat));
  CHECK(guard.is_spike(1e-3, std::vector<double>{0, 0, 0}));
}

TEST_CASE("the score is that of the formula, and the window slides") {
  std::mt19937 random(7);
  std::normal_distribution<double> noise(4, 0.5);
  const SpikeGuard guard(4, 10);
  std::vector<double> all;
  std::vector<double> kept;
  for (int i = 0; i < 40; ++i) {
    const double loss = noise(random);
    if (all.size() >= 10) {
      double mean = 0;
      double square = 0;
      for (std::size_t j = all.size() - 10; j < all.size(); ++j) {
        mean += all[j] / 10;
        square += all[j] * all[j] / 10;
      }
      CHECK(*guard.score(loss, kept) == Approx((loss - mean) / std::sqrt(square - mean * mean)));
    } else {
      CHECK_FALSE(guard.score(loss, kept));
    }
    all.push_back(loss);
    guard.remember(loss, kept);
    CHECK(kept.size() == std::min<std::size_t>(all.size(), 10));
    CHECK(kept.back() == loss);
  }
}

TEST_CASE("no guard, and one that is made smaller") {
  std::vector<double> kept = {1, 2, 3, 4, 5};
  SpikeGuard(3, 2).remember(6, kept);
  CHECK(kept == std::vector<double>{5, 6});
  const SpikeGuard off(0, 2);
  CHECK_FALSE(off.is_spike(1e9, kept));
  off.remember(7, kept);
  CHECK(kept.empty());
  CHECK_THROWS_AS(SpikeGuard(3, 1), Error);
}

}  // namespace switchyard
