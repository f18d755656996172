// RMSNorm and LayerNorm against double precision, their gradients against analytic twins that central differences
// check.
#include "layers/ops/norm.h"

#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <cmath>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

constexpr double eps = 1e-5;

struct Case {
  std::int64_t rows;
  std::int64_t width;
};
const std::vector<Case> cases = {{1, 1},  {3, 2},  {5, 7},  {2, 15},  {64, 16},  {65, 17},   {7, 31},
                                 {4, 32}, {3, 33}, {2, 64}, {1, 100}, {129, 48}, {200, 129}, {63, 512}};

struct Inputs {
  std::vector<float> x, weight, bias, dy;
};
Inputs make_inputs(const Case& c) {
  Inputs in{random_values(c.rows * c.width, 1, 2), random_values(c.width, 2), random_values(c.width, 3),
            random_values(c.rows * c.width, 4)};
  for (float& x : in.x) x += 0.5f;
  return in;
}

template <class T>
struct Results {
  std::vector<T> y, dx, dweight, dbias;
  std::vector<T> all() const {
    std::vector<T> joined;
    for (const auto* part : {&y, &dx, &dweight, &dbias}) joined.insert(joined.end(), part->begin(), part->end());
    return joined;
  }
};

GradientSum sum_into(std::vector<float>& gradient) {
  GradientSum sum;
  sum.plain = gradient.data();
  sum.size = isize(gradient.size());
  return sum;
}

Results<float> run(const Case& c, const Inputs& in, bool rms, bool add_to_dx = false) {
  const Shape matrix{c.rows, c.width};
  const std::vector<float> zeros(usize(c.width));
  Results<float> r{std::vector<float>(in.x.size()), add_to_dx ? in.dy : std::vector<float>(in.x.size(), 7.0f), zeros,
                   zeros};
  std::vector<float> inverse(usize(c.rows)), mean(usize(c.rows));
  const Tensor x = view(in.x, matrix), dy = view(in.dy, matrix), weight = view(in.weight);
  if (rms) {
    rms_norm(x, weight, static_cast<float>(eps), view(r.y, matrix), view(inverse));
    rms_norm_backward(dy, x, weight, view(inverse), view(r.dx, matrix), add_to_dx, sum_into(r.dweight));
  } else {
    layer_norm(x, weight, view(in.bias), static_cast<float>(eps), view(r.y, matrix), view(mean), view(inverse));
    layer_norm_backward(dy, x, weight, view(mean), view(inverse), view(r.dx, matrix), add_to_dx, sum_into(r.dweight),
                        sum_into(r.dbias));
  }
  return r;
}

// What the twin may get wrong on purpose: dx as if the row's own statistics did not depend on x.
enum class Fault { None, FixedScale, SampleVariance };

Results<double> twin(const Case& c, const std::vector<double>& x, const Inputs& in, bool rms,
                     Fault fault = Fault::None) {
  const std::size_t n = usize(c.width);
  Results<double> r{std::vector<double>(x.size()), std::vector<double>(x.size()), std::vector<double>(n),
                    std::vector<double>(n)};
  const double count = static_cast<double>(n);
  for (std::size_t at = 0; at < x.size(); at += n) {
    double mean = 0, squares = 0, along_one = 0, along_normal = 0;
    for (std::size_t i = 0; i < n && !rms; ++i) mean += x[at + i] / count;
    for (std::size_t i = 0; i < n; ++i) squares += (x[at + i] - mean) * (x[at + i] - mean);
    const double inverse = 1 / std::sqrt(squares / (fault == Fault::SampleVariance ? count - 1 : count) + eps);
    for (std::size_t i = 0; i < n; ++i) {
      const double normal = (x[at + i] - mean) * inverse;
      const double dy = static_cast<double>(in.dy[at + i]), weight = static_cast<double>(in.weight[i]);
      r.y[at + i] = normal * weight + (rms ? 0 : static_cast<double>(in.bias[i]));
      r.dweight[i] += dy * normal;
      if (!rms) r.dbias[i] += dy;
      if (!rms) along_one += dy * weight / count;
      along_normal += dy * weight * normal / count;
    }
    for (std::size_t i = 0; i < n; ++i) {
      const double normal = (x[at + i] - mean) * inverse;
      const double own = static_cast<double>(in.dy[at + i]) * static_cast<double>(in.weight[i]);
      r.dx[at + i] = inverse * (fault == Fault::FixedScale ? own : own - along_one - normal * along_normal);
    }
  }
  return r;
}

std::vector<double> in_double(const std::vector<float>& x) {
  return {x.begin(), x.end()};
}

// Relative to the size of the terms: weights' gradients are sums over rows, and a row of one or two elements has a
// large inverse deviation.
double difference(const Case& c, const Inputs& in, bool rms, Fault fault = Fault::None) {
  const Results<double> wanted = twin(c, in_double(in.x), in, rms, fault);
  double size = 1;
  for (const double dx : wanted.dx) size = std::max(size, std::abs(dx));
  return worst_error(run(c, in, rms).all(), wanted.all(), size);
}

constexpr double tolerance = 5e-6;

}  // namespace

TEST_CASE("norms and their gradients against double precision") {
  for (const bool rms : {true, false}) {
    for (const Case& c : cases) {
      if (!rms && c.width == 1) continue;  // x - mean is nothing but rounding there
      CAPTURE(rms, c.rows, c.width);
      REQUIRE(difference(c, make_inputs(c), rms) < tolerance);
    }
  }
}

TEST_CASE("the comparison catches a gradient that forgets the statistics, and the sample variance") {
  const Case c{65, 33};
  const Inputs in = make_inputs(c);
  for (const bool rms : {true, false}) {
    REQUIRE(difference(c, in, rms, Fault::FixedScale) > 1000 * tolerance);
    REQUIRE(difference(c, in, rms, Fault::SampleVariance) > 1000 * tolerance);
  }
}

TEST_CASE("the twin's dx is that of central differences") {
  const Case c{3, 5};
  const Inputs in = make_inputs(c);
  for (const bool rms : {true, false}) {
    std::vector<double> x = in_double(in.x);
    const Results<double> wanted = twin(c, x, in, rms);
    const auto loss = [&](const std::vector<double>& at) {
      const Results<double> r = twin(c, at, in, rms);
      double sum = 0;
      for (std::size_t i = 0; i < r.y.size(); ++i) sum += r.y[i] * static_cast<double>(in.dy[i]);
      return sum;
    };
    for (std::size_t i = 0; i < x.size(); ++i) {
      REQUIRE(central_difference(loss, x, i) == Approx(wanted.dx[i]).margin(1e-8));
    }
  }
}

TEST_CASE("dx is added where that is asked for, weight gradients always are") {
  for (const bool rms : {true, false}) {
    const Case c{70, 19};
    const Inputs in = make_inputs(c);
    const Results<float> assigned = run(c, in, rms);
    const Results<float> added = run(c, in, rms, true);  // onto dy
    for (std::size_t i = 0; i < in.dy.size(); ++i) REQUIRE(added.dx[i] == in.dy[i] + assigned.dx[i]);
    REQUIRE(same_bits(added.dweight, assigned.dweight));

    std::vector<float> twice = assigned.dweight, unused(usize(c.width)), rest(in.x.size());
    std::vector<float> y(in.x.size()), inverse(usize(c.rows)), mean(usize(c.rows));
    const Shape matrix{c.rows, c.width};
    if (rms) {
      rms_norm(view(in.x, matrix), view(in.weight), static_cast<float>(eps), view(y, matrix), view(inverse));
      rms_norm_backward(view(in.dy, matrix), view(in.x, matrix), view(in.weight), view(inverse), view(rest, matrix),
                        false, sum_into(twice));
    } else {
      layer_norm(view(in.x, matrix), view(in.weight), view(in.bias), static_cast<float>(eps), view(y, matrix),
                 view(mean), view(inverse));
      layer_norm_backward(view(in.dy, matrix), view(in.x, matrix), view(in.weight), view(mean), view(inverse),
                          view(rest, matrix), false, sum_into(twice), sum_into(unused));
    }
    for (std::size_t i = 0; i < twice.size(); ++i) REQUIRE(twice[i] == 2 * assigned.dweight[i]);
  }
}

TEST_CASE("norms are one result for every number of threads and vector width") {
  for (const bool rms : {true, false}) {
    for (const Case& c : cases) {
      const Inputs in = make_inputs(c);
      REQUIRE(one_result([&] { return run(c, in, rms).all(); }));
    }
  }
}

TEST_CASE("a row does not depend on the rows beside it") {
  const Case c{130, 37};
  const Inputs in = make_inputs(c);
  for (const bool rms : {true, false}) {
    const Results<float> together = run(c, in, rms);
    for (const std::int64_t row : {0, 1, 63, 64, 129}) {
      const auto part = [&](const std::vector<float>& x) {
        return std::vector<float>(x.begin() + row * c.width, x.begin() + (row + 1) * c.width);
      };
      const Results<float> alone = run({1, c.width}, {part(in.x), in.weight, in.bias, part(in.dy)}, rms);
      REQUIRE(same_bits(alone.y, part(together.y)));
      REQUIRE(same_bits(alone.dx, part(together.dx)));
    }
  }
}

TEST_CASE("norms of no rows add nothing") {
  const Case c{0, 8};
  for (const bool rms : {true, false}) {
    const Results<float> r = run(c, make_inputs(c), rms);
    REQUIRE(same_bits(r.dweight, std::vector<float>(8)));
  }
}

TEST_CASE("norms tell what does not fit") {
  const std::vector<float> x(12), weight(3), rows(4);
  std::vector<float> gradient(5);
  REQUIRE_THROWS_WITH(rms_norm(view(x, {4, 3}), view(rows), 1e-5f, view(x, {4, 3}), view(rows)),
                      "rms_norm: weight is [4], wanted [3]");
  REQUIRE_THROWS_WITH(rms_norm_backward(view(x, {4, 3}), view(x, {4, 3}), view(weight), view(rows), view(x, {4, 3}),
                                        false, sum_into(gradient)),
                      "rms_norm_backward: dweight has room for 5 elements, wanted 3");
}
