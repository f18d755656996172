// AdamW against its definition in double precision, step after step.
#include "layers/ops/adamw.h"

#include "comm/reduce/exact.h"
#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <cmath>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

std::vector<std::int64_t> exact_of(const std::vector<float>& x) {
  std::vector<std::int64_t> sum(x.size(), 0);
  std::atomic<bool> non_finite{false};
  exact_add(sum.data(), x.data(), isize(x.size()), exact_limit(1), non_finite);
  return sum;
}

template <class Gradient>
std::vector<double> block_sums(const Gradient* gradient, double scale, std::int64_t n) {
  std::vector<double> sums(usize((n + squares_block - 1) / squares_block), -1.0);
  squares_by_block(gradient, scale, n, sums.data());
  return sums;
}
template <class Gradient>
double sum_of_squares(const Gradient* gradient, double scale, std::int64_t n) {
  double total = 0;
  for (const double sum : block_sums(gradient, scale, n)) total += sum;
  return total;
}

struct Twin {
  std::vector<double> value, m, v;
  void update(const AdamWStep& s, const std::vector<float>& gradient, double scale) {
    const double t = double(s.step);
    for (std::size_t i = 0; i < value.size(); ++i) {
      const double g = gradient[i] * scale;
      value[i] *= 1 - s.lr * s.weight_decay;
      m[i] = s.beta1 * m[i] + (1 - s.beta1) * g;
      v[i] = s.beta2 * v[i] + (1 - s.beta2) * g * g;
      value[i] -= s.lr * (m[i] / (1 - std::pow(s.beta1, t))) / (std::sqrt(v[i] / (1 - std::pow(s.beta2, t))) + s.eps);
    }
  }
};

}  // namespace

TEST_CASE("twenty steps follow the definition, for both kinds of gradient") {
  for (const std::int64_t n : {1, 7, 16, 33, 4096, 10001}) {
    for (const bool exact : {false, true}) {
      std::vector<float> value = random_values(n, 1), m(usize(n)), v(usize(n));
      Twin twin{{value.begin(), value.end()}, std::vector<double>(usize(n)), std::vector<double>(usize(n))};
      for (std::int64_t step = 1; step <= 20; ++step) {
        const AdamWStep s{.lr = 1e-2, .weight_decay = 0.1, .step = step};
        const std::vector<float> gradient = random_values(n, std::uint64_t(100 + step));
        twin.update(s, gradient, 0.37);
        if (exact) {
          adamw(s, exact_of(gradient).data(), 0.37, n, value.data(), m.data(), v.data());
        } else {
          adamw(s, gradient.data(), 0.37, n, value.data(), m.data(), v.data());
        }
      }
      REQUIRE(worst_error(m, twin.m, 1e-2) < 2e-5);
      REQUIRE(worst_error(v, twin.v, 1e-2) < 2e-5);
      REQUIRE(worst_error(value, twin.value, 0.1) < 1e-5);
      value[0] += 1e-3f;  // planted
      REQUIRE(worst_error(value, twin.value, 0.1) > 1e-5);
    }
  }
}

TEST_CASE("the first step is the learning rate, whatever the gradient's size") {
  std::vector<float> value = {0, 0, 0}, m(3), v(3);
  const std::vector<float> gradient = {1e-4f, -3, 100};
  adamw(AdamWStep{.lr = 0.5, .eps = 0, .step = 1}, gradient.data(), 1.0, 3, value.data(), m.data(), v.data());
  CHECK(value[0] == Approx(-0.5));
  CHECK(value[1] == Approx(0.5));
  CHECK(value[2] == Approx(-0.5));
  CHECK_THROWS_AS(adamw(AdamWStep{.step = 0}, gradient.data(), 1.0, 3, value.data(), m.data(), v.data()), Error);
}

TEST_CASE("a fixed-point gradient acts as the fp32 that exact_to_float makes of it") {
  constexpr std::int64_t n = 9001;
  const std::vector<std::int64_t> sum = exact_of(random_values(n, 3));
  const double scale = 1.0 / 3;
  std::vector<float> gradient(usize(n));
  exact_to_float(sum.data(), n, scale, gradient.data());
  std::vector<float> value = random_values(n, 4), m(usize(n)), v(usize(n));
  std::vector<float> value2 = value, m2 = m, v2 = v;
  adamw(AdamWStep{.lr = 0.1}, sum.data(), scale, n, value.data(), m.data(), v.data());
  adamw(AdamWStep{.lr = 0.1}, gradient.data(), 1.0, n, value2.data(), m2.data(), v2.data());
  CHECK(same_bits(value, value2));
  CHECK(sum_of_squares(sum.data(), scale, n) == sum_of_squares(gradient.data(), 1.0, n));
}

TEST_CASE("sum of squares") {
  for (const std::int64_t n : {0, 1, 15, 16, 17, 4095, 4096, 4097, 50001}) {
    const std::vector<float> x = random_values(n, 5);
    double wanted = 0;
    for (const float value : x) wanted += std::pow(value * 0.25, 2);
    CHECK(sum_of_squares(x.data(), 0.25, n) == Approx(wanted).epsilon(1e-13));
    CHECK(sum_of_squares(exact_of(x).data(), 0.25, n) == Approx(wanted).epsilon(1e-13));
  }
  const std::vector<float> huge(10, 3e38f), broken = {1, std::nanf(""), 2};
  CHECK(sum_of_squares(huge.data(), 1.0, 10) == Approx(10 * 9e76));
  CHECK(std::isnan(sum_of_squares(broken.data(), 1.0, 3)));
}

TEST_CASE("a piece that begins at a block has the sums, and the update, that the whole has there") {
  constexpr std::int64_t n = 5 * squares_block + 77;
  const std::vector<float> gradient = random_values(n, 8), start = random_values(n, 9);
  const std::vector<std::int64_t> sum = exact_of(gradient);
  const AdamWStep step{.lr = 0.1, .weight_decay = 0.1};
  const std::vector<double> whole = block_sums(sum.data(), 0.3, n);
  std::vector<float> whole_value = start, whole_m(usize(n)), whole_v(usize(n));
  adamw(step, sum.data(), 0.3, n, whole_value.data(), whole_m.data(), whole_v.data());
  const auto same_in_pieces = [&](std::int64_t cut) {
    std::vector<float> value = start, m(usize(n)), v(usize(n));
    std::vector<double> sums = block_sums(sum.data(), 0.3, cut);
    const std::vector<double> rest = block_sums(sum.data() + cut, 0.3, n - cut);
    sums.insert(sums.end(), rest.begin(), rest.end());
    adamw(step, sum.data() + cut, 0.3, n - cut, value.data() + cut, m.data() + cut, v.data() + cut);
    adamw(step, sum.data(), 0.3, cut, value.data(), m.data(), v.data());
    CHECK((same_bits(value, whole_value) && same_bits(m, whole_m) && same_bits(v, whole_v)));
    return sums == whole;
  };
  for (std::int64_t block = 0; block <= 5; ++block) CHECK(same_in_pieces(block * squares_block));
  CHECK_FALSE(same_in_pieces(squares_block + 1));  // planted: not at a block
}

TEST_CASE("one result for every vector width and thread count") {
  constexpr std::int64_t n = 20011;
  const std::vector<float> start = random_values(n, 6), gradient = random_values(n, 7);
  const std::vector<std::int64_t> sum = exact_of(gradient);
  CHECK(one_result([&] {
    std::vector<float> value = start, m(usize(n)), v(usize(n));
    adamw(AdamWStep{.lr = 0.1, .weight_decay = 0.1}, gradient.data(), 0.3, n, value.data(), m.data(), v.data());
    adamw(AdamWStep{.lr = 0.1, .weight_decay = 0.1, .step = 2}, sum.data(), 0.3, n, value.data(), m.data(), v.data());
    for (const double total : {sum_of_squares(gradient.data(), 0.3, n), sum_of_squares(sum.data(), 0.3, n)}) {
      const auto bits = std::bit_cast<std::uint64_t>(total);
      for (const int shift : {0, 16, 32, 48}) value.push_back(float((bits >> shift) & 0xffff));
    }
    return value;
  }));
}
