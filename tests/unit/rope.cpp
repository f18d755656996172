// RoPE against double precision, and what makes it a position embedding: products depend on distances only.
#include "layers/attention/rope.h"

#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <cmath>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

struct Case {
  std::int64_t positions;
  std::int64_t sequences;
  std::int64_t heads;
  std::int64_t head_dim;
};
const std::vector<Case> cases = {{1, 1, 1, 2},  {5, 3, 2, 6},   {7, 2, 3, 10}, {33, 1, 1, 32},
                                 {9, 2, 2, 34}, {64, 2, 4, 64}, {3, 1, 1, 128}};
constexpr double theta = 10000;

std::vector<float> table_of(std::int64_t first, std::int64_t count, std::int64_t head_dim) {
  std::vector<float> table(usize(count * head_dim));
  rope_table(first, count, theta, view(table, {count, head_dim}));
  return table;
}

// Each row's first head.
std::vector<float> first_heads(const Case& c, const std::vector<float>& x) {
  std::vector<float> heads;
  for (std::int64_t t = 0; t < c.positions * c.sequences; ++t) {
    const auto begin = x.begin() + t * c.heads * c.head_dim;
    heads.insert(heads.end(), begin, begin + c.head_dim);
  }
  return heads;
}

std::vector<float> turned(const Case& c, const std::vector<float>& x, bool back = false, std::int64_t first = 0) {
  std::vector<float> y = x;
  const std::vector<float> table = table_of(first, c.positions, c.head_dim);
  std::vector<float> keys = first_heads(c, x);
  const Tensor rows = view(y, {c.positions * c.sequences, c.heads * c.head_dim});
  const Tensor key_rows = view(keys, {c.positions * c.sequences, c.head_dim});
  (back ? rope_backward : rope)(view(table, {c.positions, c.head_dim}), c.head_dim, rows, key_rows);
  REQUIRE(same_bits(keys, first_heads(c, y)));  // keys turn as queries do
  return y;
}

// interleaved: the other form, which turns neighbours (RoFormer's own), as a fault that must be seen.
std::vector<double> oracle(const Case& c, const std::vector<float>& x, bool interleaved = false) {
  std::vector<double> y(x.size());
  const std::int64_t half = c.head_dim / 2;
  for (std::int64_t t = 0; t < c.positions * c.sequences; ++t) {
    for (std::int64_t h = 0; h < c.heads; ++h) {
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(t % c.positions) *
                             std::pow(theta, -2 * static_cast<double>(i) / static_cast<double>(c.head_dim));
        const std::int64_t head = (t * c.heads + h) * c.head_dim;
        const std::size_t a = usize(head + (interleaved ? 2 * i : i));
        const std::size_t b = interleaved ? a + 1 : a + usize(half);
        const double xa = static_cast<double>(x[a]), xb = static_cast<double>(x[b]);
        y[a] = xa * std::cos(angle) - xb * std::sin(angle);
        y[b] = xb * std::cos(angle) + xa * std::sin(angle);
      }
    }
  }
  return y;
}

std::vector<float> make_input(const Case& c, std::uint64_t seed) {
  return random_values(c.positions * c.sequences * c.heads * c.head_dim, seed);
}

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

}  // namespace

TEST_CASE("rope turns each pair by its angle") {
  for (const Case& c : cases) {
    const std::vector<float> x = make_input(c, 1);
    CAPTURE(c.positions, c.sequences, c.heads, c.head_dim);
    REQUIRE(worst_error(turned(c, x), oracle(c, x), 1.0) < 1e-6);
    if (c.head_dim > 2 && c.positions > 1) REQUIRE(worst_error(turned(c, x), oracle(c, x, true), 1.0) > 1e-2);
  }
}

TEST_CASE("rope's backward is its transpose, and undoes it") {
  for (const Case& c : cases) {
    const std::vector<float> x = make_input(c, 2), dy = make_input(c, 3);
    REQUIRE(dot(turned(c, x), dy) == Approx(dot(x, turned(c, dy, true))).epsilon(1e-5).margin(1e-5));
    REQUIRE(worst_error(turned(c, turned(c, x), true), x, 1.0) < 1e-6);
    // Turning forward in backward would be seen.
    if (c.positions > 2) REQUIRE(worst_error(turned(c, turned(c, x)), x, 1.0) > 1e-2);
  }
}

TEST_CASE("products of turned rows depend on their distance alone") {
  const Case c{1, 1, 1, 64};
  const std::vector<float> q = make_input(c, 4), k = make_input(c, 5);
  const double wanted = dot(turned(c, q, false, 17), turned(c, k, false, 5));
  for (const std::int64_t shift : {1, 100, 3000}) {
    REQUIRE(dot(turned(c, q, false, 17 + shift), turned(c, k, false, 5 + shift)) == Approx(wanted).epsilon(1e-4));
  }
  REQUIRE(dot(turned(c, q, false, 18), turned(c, k, false, 5)) != Approx(wanted).epsilon(1e-4));
}

TEST_CASE("a table may begin anywhere") {
  const std::vector<float> whole = table_of(0, 5000, 32), part = table_of(4321, 10, 32);
  REQUIRE(same_bits(part, std::vector<float>(whole.begin() + 4321 * 32, whole.begin() + 4331 * 32)));
  // Far out, too, an angle is as good as double makes it: position 4321 is 687 turns and 4.42 radians.
  REQUIRE(static_cast<double>(part[0]) == Approx(std::cos(4321.0)).epsilon(1e-7));
  REQUIRE(static_cast<double>(part[16]) == Approx(std::sin(4321.0)).epsilon(1e-7));
}

TEST_CASE("rope is one result for every number of threads and vector width") {
  for (const Case& c : cases) {
    const std::vector<float> x = make_input(c, 6);
    REQUIRE(one_result([&] { return turned(c, x); }));
    REQUIRE(one_result([&] { return turned(c, x, true); }));
  }
}

TEST_CASE("rope tells what does not fit") {
  const std::vector<float> x(30), table(15);
  REQUIRE_THROWS_WITH(rope(view(table, {5, 3}), 3, view(x, {5, 6}), view(x, {5, 6})),
                      "rope: a head width of 3 has no halves");
  REQUIRE_THROWS_WITH(rope(view(table, {5, 3}), 6, view(x, {5, 6}), view(x, {5, 6})),
                      "rope: table is [5, 3], wanted [5, 6]");
  REQUIRE_THROWS_WITH(rope(view(table, {5, 3}), 2, view(x, {5, 6}), view(x, {6, 5})),
                      "rope: k is [6, 5], wanted a matrix of whole heads of width 2");
  REQUIRE_THROWS_WITH(rope_table(0, 5, theta, view(table, {5, 3})),
                      "rope_table: table is [5, 3], wanted a matrix with an even number of columns");
}
