// Each nonlinearity against double precision, each gradient against the derivative of that.
#include "layers/ops/activation.h"

#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <cmath>
#include <limits>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

const std::vector<std::int64_t> sizes = {1, 7, 8, 15, 16, 17, 33, 1000, 8193, 20000};

double silu(double z) {
  return z / (1 + std::exp(-z));
}
double silu_slope(double z) {
  const double s = 1 / (1 + std::exp(-z));
  return s * (1 + z * (1 - s));
}
double phi(double x) {
  return std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
}
double gelu(double x) {
  return x * std::erfc(-x / std::sqrt(2.0)) / 2;
}
double gelu_slope(double x) {
  return std::erfc(-x / std::sqrt(2.0)) / 2 + x * phi(x);
}

// Normal numbers, and some from far out.
std::vector<float> spread(std::int64_t n, std::uint64_t seed) {
  std::vector<float> x = random_values(n, seed, 2);
  for (std::size_t i = 0; i < x.size(); i += 5) x[i] *= 20;
  return x;
}

}  // namespace

TEST_CASE("swiglu") {
  for (const std::int64_t n : sizes) {
    const std::vector<float> gate = spread(n, 1), up = random_values(n, 2), dh = random_values(n, 3);
    std::vector<float> h(usize(n)), dgate(usize(n)), dup(usize(n));
    swiglu(view(gate), view(up), view(h));
    swiglu_backward(view(dh), view(gate), view(up), view(dgate), view(dup));
    std::vector<double> wanted, wanted_dgate, wanted_dup;
    for (std::size_t i = 0; i < usize(n); ++i) {
      wanted.push_back(silu(gate[i]) * up[i]);
      wanted_dgate.push_back(double(dh[i]) * up[i] * silu_slope(gate[i]));
      wanted_dup.push_back(dh[i] * silu(gate[i]));
    }
    // e^z is taken for 0 below 2^-126, which is where the smallest numbers here come from.
    REQUIRE(worst_error(h, wanted, 1e-28) < 1e-6);
    REQUIRE(worst_error(dup, wanted_dup, 1e-28) < 1e-6);
    REQUIRE(worst_error(dgate, wanted_dgate, 0.1) < 2e-6);
    // In place.
    std::vector<float> a = gate, b = up;
    swiglu_backward(view(dh), view(a), view(b), view(a), view(b));
    REQUIRE(same_bits(a, dgate));
    REQUIRE(same_bits(b, dup));
  }
}

TEST_CASE("gelu") {
  for (const std::int64_t n : sizes) {
    const std::vector<float> x = spread(n, 4), dy = random_values(n, 5);
    std::vector<float> y(usize(n)), dx(usize(n));
    switchyard::gelu(view(x), view(y));
    gelu_backward(view(dy), view(x), view(dx));
    std::vector<double> wanted, wanted_dx;
    for (std::size_t i = 0; i < usize(n); ++i) {
      wanted.push_back(gelu(x[i]));
      wanted_dx.push_back(dy[i] * gelu_slope(x[i]));
    }
    REQUIRE(worst_error(y, wanted, 1e-4) < 1e-6);
    REQUIRE(worst_error(dx, wanted_dx, 0.1) < 2e-6);
  }
}

TEST_CASE("gelu keeps its digits in the lower tail and over the whole line") {
  std::vector<float> x;
  for (float value = -13; value <= 13; value += 0.00321f) x.push_back(value);
  std::vector<float> y(x.size());
  switchyard::gelu(view(x), view(y));
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double wanted = gelu(x[i]);
    // The exponential's argument is rounded once, hence the part that grows with x^2.
    if (std::abs(wanted) > 1e-36) {
      worst = std::max(worst, std::abs(y[i] - wanted) / std::abs(wanted) / (1 + double(x[i]) * x[i] / 4));
    }
  }
  CHECK(worst < 4e-7);
}

TEST_CASE("the slopes in this test are the derivatives") {
  for (double x = -6; x < 6; x += 0.37) {
    std::vector<double> at = {x};
    CHECK(central_difference([](const auto& v) { return gelu(v[0]); }, at, 0) == Approx(gelu_slope(x)).margin(1e-8));
    CHECK(central_difference([](const auto& v) { return silu(v[0]); }, at, 0) == Approx(silu_slope(x)).margin(1e-8));
  }
  std::vector<double> at = {1.5};  // planted: the sigmoid alone is not silu's slope
  CHECK(std::abs(central_difference([](const auto& v) { return silu(v[0]); }, at, 0) - 1 / (1 + std::exp(-1.5))) > 0.1);
}

TEST_CASE("relu and sums in place") {
  const std::vector<float> x = {-2, -0.0f, 0, 3, 1e-30f}, dy = {1, 2, 3, 4, 5};
  std::vector<float> y(5), dx(5);
  relu(view(x), view(y));
  CHECK(y == std::vector<float>{0, 0, 0, 3, 1e-30f});
  relu_backward(view(dy), view(x), view(dx));
  CHECK(dx == std::vector<float>{0, 0, 0, 4, 5});
  add_in_place(view(dy), view(dx));
  CHECK(dx == std::vector<float>{1, 2, 3, 8, 10});
}

TEST_CASE("extreme inputs: no overflow, and NaN is passed on") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const std::vector<float> x = {-1e30f, -200, 200, 1e30f, inf, nan}, one(6, 1.0f);
  std::vector<float> y(6), z(6);
  for (const auto op : {switchyard::gelu, relu}) {
    op(view(x), view(y));
    CHECK((std::abs(y[0]) == 0 && std::abs(y[1]) == 0));
    CHECK((y[2] == 200 && y[3] == 1e30f && y[4] == inf));
    CHECK(std::isnan(y[5]));
  }
  swiglu(view(x), view(one), view(y));
  CHECK((std::abs(y[0]) == 0 && std::abs(y[1]) < 1e-30f));
  CHECK((y[2] == 200 && y[3] == 1e30f && y[4] == inf));
  CHECK(std::isnan(y[5]));
  swiglu_backward(view(one), view(x), view(one), view(y), view(z));
  CHECK((std::abs(y[0]) < 1e-30f && y[2] == 1 && y[3] == 1));
  CHECK(std::isnan(y[5]));
  gelu_backward(view(one), view(x), view(y));
  CHECK((std::abs(y[0]) < 1e-30f && y[2] == 1 && y[3] == 1));
  CHECK(std::isnan(y[5]));
}

TEST_CASE("one result for every vector width and thread count") {
  for (const std::int64_t n : {5, 37, 40001}) {
    const std::vector<float> gate = spread(n, 6), up = spread(n, 7), dh = spread(n, 8);
    std::vector<float> a(usize(n)), b(usize(n));
    CHECK(one_result([&] { return swiglu(view(gate), view(up), view(a)), a; }));
    CHECK(one_result([&] { return switchyard::gelu(view(gate), view(a)), a; }));
    CHECK(one_result([&] { return gelu_backward(view(dh), view(gate), view(a)), a; }));
    CHECK(one_result([&] {
      swiglu_backward(view(dh), view(gate), view(up), view(a), view(b));
      std::vector<float> both = a;
      both.insert(both.end(), b.begin(), b.end());
      return both;
    }));
  }
  int call = 0;  // planted: a result that changes is noticed
  CHECK_FALSE(one_result([&] { return std::vector<float>{float(call++ == 4)}; }));
}

TEST_CASE("shapes that differ are told") {
  const std::vector<float> a(6), b(8);
  CHECK_THROWS_WITH(swiglu(view(a, {2, 3}), view(b, {2, 4}), view(a, {2, 3})), "swiglu: up is [2, 4], wanted [2, 3]");
  CHECK_THROWS_WITH(relu(view(a), view(b)), "relu: y is [8], wanted [6]");
}
