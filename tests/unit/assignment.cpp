// Capacity and its drops against a count by hand (law 4), and the balance, z and entropy figures against double
// precision and central differences.
#include "layers/moe/assignment.h"

#include "layers/moe/balance.h"
#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <cmath>
#include <limits>
#include <set>

using namespace switchyard;
using namespace switchyard::test;

namespace {

constexpr std::int64_t no_bound = std::numeric_limits<std::int64_t>::max();

// Distinct experts for each token.
std::vector<std::int32_t> some_choices(std::int64_t tokens, std::int64_t slots, std::int64_t experts) {
  const std::vector<std::int32_t> drawn = random_indices(tokens, experts, 5);
  std::vector<std::int32_t> choices;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t k = 0; k < slots; ++k) {
      choices.push_back(static_cast<std::int32_t>((drawn[usize(t)] * drawn[usize(t)] + k) % experts));
    }
  }
  return choices;
}

Assignment assign_all(const std::vector<std::int32_t>& experts, const std::vector<float>& weights, std::int64_t slots,
                      std::int64_t count, std::int64_t capacity) {
  const Shape shape{isize(experts.size()) / slots, slots};
  return assign(view(experts, shape), view(weights, shape), count, capacity);
}

}  // namespace

TEST_CASE("capacity is the mean load times the factor, rounded up") {
  CHECK(expert_capacity(64, 2, 8, 1.0) == 16);
  CHECK(expert_capacity(64, 2, 8, 1.1) == 18);
  CHECK(expert_capacity(64, 2, 10, 1.0) == 13);
  CHECK(expert_capacity(400, 2, 8, 1.1) == 110);
  CHECK(expert_capacity(10, 2, 2, 5) == 10);  // a token chooses an expert once
  CHECK(expert_capacity(3, 1, 100, 0.01) == 1);
  CHECK(expert_capacity(0, 2, 8, 1.5) == 0);
  CHECK(expert_capacity(64, 2, 8, 0) == no_bound);
}

TEST_CASE("slots are taken in token order, and every one is accounted for") {
  for (const std::int64_t experts : {1, 3, 8, 10}) {
    for (const std::int64_t slots : std::set<std::int64_t>{1, std::min<std::int64_t>(experts, 2), experts}) {
      const std::int64_t tokens = 37;
      const std::vector<std::int32_t> choices = some_choices(tokens, slots, experts);
      const std::vector<float> weights = random_values(tokens * slots, 3);
      for (const std::int64_t capacity : {std::int64_t{0}, std::int64_t{1}, std::int64_t{7}, no_bound}) {
        const Assignment got = assign_all(choices, weights, slots, experts, capacity);
        std::vector<std::int64_t> chosen(usize(experts), 0);
        std::size_t kept = 0;
        for (std::size_t i = 0; i < choices.size(); ++i) {
          const bool taken = chosen[usize(choices[i])]++ < capacity;
          if (!taken) continue;
          REQUIRE(kept < got.kept.size());
          const AssignedSlot& slot = got.kept[kept++];
          CHECK(slot.token == isize(i) / slots);
          CHECK(slot.choice == isize(i) % slots);
          CHECK(slot.expert == choices[i]);
          CHECK(slot.weight == weights[i]);
        }
        CHECK(kept == got.kept.size());
        CHECK(got.chosen == chosen);
        for (std::size_t e = 0; e < chosen.size(); ++e) CHECK(got.worked_on[e] == std::min(chosen[e], capacity));
        CHECK(isize(got.kept.size()) + got.dropped == tokens * slots);
      }
    }
  }
}

TEST_CASE("pairs of experts that tokens choose together, of what is kept") {
  // Three tokens of two experts each; expert 1 takes one token only, so that the second goes to expert 2 alone.
  const Assignment assignment = assign_all({0, 1, 1, 2, 0, 2}, {1, 1, 1, 1, 1, 1}, 2, 3, 1);
  std::vector<std::int64_t> pairs(9, 10);
  add_pairs(assignment, 3, pairs);
  CHECK(pairs == std::vector<std::int64_t>{10, 11, 10, 11, 10, 10, 10, 10, 10});
  std::vector<std::int64_t> all(9, 0);
  add_pairs(assign_all({0, 1, 1, 2, 0, 2}, {1, 1, 1, 1, 1, 1}, 2, 3, 3), 3, all);
  CHECK(all == std::vector<std::int64_t>{0, 1, 1, 1, 0, 1, 1, 1, 0});
  CHECK_THROWS_AS(add_pairs(assignment, 2, all), Error);
}

TEST_CASE("a rank without tokens, and an expert that is not there") {
  const Assignment none = assign_all({}, {}, 2, 4, 3);
  CHECK(none.kept.empty());
  CHECK(none.chosen == std::vector<std::int64_t>(4, 0));
  CHECK_THROWS_AS(assign_all({0, 4}, {1, 1}, 1, 4, 3), Error);
  CHECK_THROWS_AS(assign_all({-1}, {1}, 1, 4, 3), Error);
}

TEST_CASE("balance loss: 1 when even, experts over slots when one has all; its gradient is the slope") {
  const std::int64_t tokens = 12;
  const std::vector<float> even(usize(tokens * 4), 0.25F);
  CHECK(balance_loss(even.data(), tokens, 2, std::vector<std::int64_t>{6, 6, 6, 6}) == Approx(1));
  std::vector<float> one(usize(tokens * 4), 0.0F);
  for (std::int64_t t = 0; t < tokens; ++t) one[usize(4 * t)] = 1;
  CHECK(balance_loss(one.data(), tokens, 1, std::vector<std::int64_t>{12, 0, 0, 0}) == Approx(4));
  CHECK(balance_loss(one.data(), 0, 1, std::vector<std::int64_t>{0, 0, 0, 0}) == 0);

  const std::int64_t experts = 5;
  const std::vector<std::int64_t> chosen = {3, 9, 0, 4, 8};
  std::vector<float> p = random_values(tokens * experts, 2);
  std::vector<float> gradient(usize(experts));
  balance_loss_gradient(tokens, 2, chosen, 0.7, gradient.data());
  for (std::int64_t e = 0; e < experts; ++e) {
    for (const std::int64_t t : {std::int64_t{0}, tokens - 1}) {  // the loss is linear: steps may be large
      std::vector<float> moved = p;
      moved[usize(t * experts + e)] += 1;
      const double slope =
          0.7 * (balance_loss(moved.data(), tokens, 2, chosen) - balance_loss(p.data(), tokens, 2, chosen));
      CHECK(std::abs(slope - static_cast<double>(gradient[usize(e)])) < 1e-6);
      CHECK(std::abs(slope - static_cast<double>(gradient[usize(e)]) * 1.01 - 1e-3) > 1e-6);  // a planted fault is seen
    }
  }
}

TEST_CASE("z-loss and entropy") {
  const std::vector<float> log_sums = {0.5F, -2, 3, 0};
  CHECK(z_loss(log_sums.data(), 4) == Approx((0.25 + 4 + 9) / 4));
  CHECK(z_loss(log_sums.data(), 0) == 0);
  std::vector<float> gradient(4);
  z_loss_gradient(log_sums.data(), 4, 0.3, gradient.data());
  for (std::size_t t = 0; t < 4; ++t) {
    std::vector<double> x(log_sums.begin(), log_sums.end());
    const double slope = central_difference(
        [](const std::vector<double>& v) {
          double sum = 0;
          for (const double value : v) sum += value * value;
          return 0.3 * sum / 4;
        },
        x, t);
    CHECK(static_cast<double>(gradient[t]) == Approx(slope).margin(1e-7));
  }
  const std::vector<float> p = {0.25F, 0.25F, 0.25F, 0.25F, 1, 0, 0, 0};
  CHECK(mean_entropy(p.data(), 2, 4) == Approx(std::log(4.0) / 2));
  CHECK(mean_entropy(p.data(), 0, 4) == 0);
}
