// Attention against the plain T x T form in double precision, and its laws: causality, and one result to the bit
// whatever stands beside a sequence, for every number of threads and vector width.
#include "layers/attention/attention.h"

#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <algorithm>
#include <cmath>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

struct Inputs {
  std::vector<float> q, k, v, dout;
};
Inputs make_inputs(const AttentionShape& s, double deviation = 1) {
  const AttentionShapes of(s);
  return {random_values(of.q.size(), 1, deviation), random_values(of.k.size(), 2, deviation),
          random_values(of.v.size(), 3), random_values(of.out.size(), 4)};
}

template <class T>
struct Results {
  std::vector<T> out, log_sum_exp, dq, dk, dv;
  explicit Results(const AttentionShapes& of)
      : out(usize(of.out.size())),
        log_sum_exp(usize(of.log_sum_exp.size())),
        dq(usize(of.q.size())),
        dk(usize(of.k.size())),
        dv(usize(of.v.size())) {}
  std::vector<T> all() const {
    std::vector<T> joined;
    for (const auto* part : {&out, &log_sum_exp, &dq, &dk, &dv})
      joined.insert(joined.end(), part->begin(), part->end());
    return joined;
  }
};

Results<float> run(const AttentionShape& s, const Inputs& in) {
  const AttentionShapes of(s);
  Results<float> r(of);
  Arena scratch(cpu_device());
  const Tensor q = view(in.q, of.q), k = view(in.k, of.k), v = view(in.v, of.v), out = view(r.out, of.out);
  const Tensor log_sum_exp = view(r.log_sum_exp, of.log_sum_exp);
  attention(s, q, k, v, scratch, out, log_sum_exp);
  attention_backward(s, view(in.dout, of.out), q, k, v, out, log_sum_exp, scratch, view(r.dq, of.q), view(r.dk, of.k),
                     view(r.dv, of.v));
  REQUIRE(scratch.in_use() == Bytes(0));
  return r;
}

// What the oracle may get wrong on purpose.
enum class Fault { None, SeesOneKeyTooMany, MissesTheFirstKey, NoScale, NeighboursHead };

// The textbook form: softmax of all scores, and its derivative, row by row.
template <class T>
Results<double> oracle(const AttentionShape& s, const std::vector<T>& q, const std::vector<T>& k,
                       const std::vector<T>& v, const std::vector<float>& dout, Fault fault = Fault::None) {
  Results<double> r{AttentionShapes(s)};
  const std::int64_t n = s.positions;
  const std::int64_t width = s.head_dim;
  const double scale = fault == Fault::NoScale ? 1.0 : 1.0 / std::sqrt(static_cast<double>(width));
  std::vector<double> p(usize(n)), dp(usize(n));
  for (std::int64_t b = 0; b < s.sequences; ++b) {
    for (std::int64_t h = 0; h < s.heads; ++h) {
      std::int64_t g = h / (s.heads / s.kv_heads);
      if (fault == Fault::NeighboursHead) g = h % s.kv_heads;
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t values = s.value_width();
        const std::size_t row = usize(((b * n + i) * s.heads + h) * width);
        const std::size_t out_row = usize(((b * n + i) * s.heads + h) * values);
        const auto k_row = [&](std::int64_t j) { return usize(((b * n + j) * s.kv_heads + g) * width); };
        const auto v_row = [&](std::int64_t j) { return usize(((b * n + j) * s.kv_heads + g) * values); };
        const std::int64_t begin = fault == Fault::MissesTheFirstKey && i > 0 ? 1 : 0;
        const std::int64_t end = std::min(n, i + (fault == Fault::SeesOneKeyTooMany ? 2 : 1));
        const auto dot = [](const auto& a, std::size_t at, const auto& c, std::size_t from, std::int64_t size) {
          double sum = 0;
          for (std::size_t x = 0; x < usize(size); ++x) {
            sum += static_cast<double>(a[at + x]) * static_cast<double>(c[from + x]);
          }
          return sum;
        };
        double highest = -INFINITY, sum = 0, mean = 0;
        for (std::int64_t j = begin; j < end; ++j) {
          p[usize(j)] = scale * dot(q, row, k, k_row(j), width);
          highest = std::max(highest, p[usize(j)]);
        }
        for (std::int64_t j = begin; j < end; ++j) sum += p[usize(j)] = std::exp(p[usize(j)] - highest);
        r.log_sum_exp[usize((b * s.heads + h) * n + i)] = highest + std::log(sum);
        for (std::int64_t j = begin; j < end; ++j) {
          p[usize(j)] /= sum;
          dp[usize(j)] = dot(dout, out_row, v, v_row(j), values);
          mean += p[usize(j)] * dp[usize(j)];
        }
        for (std::int64_t j = begin; j < end; ++j) {
          const double weight = p[usize(j)];
          const double slope = weight * (dp[usize(j)] - mean) * scale;
          for (std::size_t c = 0; c < usize(values); ++c) {
            r.out[out_row + c] += weight * static_cast<double>(v[v_row(j) + c]);
            r.dv[v_row(j) + c] += weight * static_cast<double>(dout[out_row + c]);
          }
          for (std::size_t c = 0; c < usize(width); ++c) {
            r.dq[row + c] += slope * static_cast<double>(k[k_row(j) + c]);
            r.dk[k_row(j) + c] += slope * static_cast<double>(q[row + c]);
          }
        }
      }
    }
  }
  return r;
}

// The largest difference, where numbers are about 1.
double difference(const Results<float>& got, const Results<double>& wanted) {
  return worst_error(got.all(), wanted.all(), 1.0);
}

constexpr double tolerance = 1e-5;

}  // namespace

TEST_CASE("attention and its gradients against the plain form") {
  const std::vector<AttentionShape> shapes = {
      {1, 1, 1, 1, 1},
      {1, 7, 1, 1, 3},
      {2, 5, 2, 1, 8},
      {3, 13, 6, 2, 5},
      {1, 64, 4, 4, 64},
      {1, 95, 2, 2, 16},
      {1, 96, 2, 1, 20},
      {2, 97, 3, 1, 33},
      {1, 100, 2, 2, 128},
      {1, 129, 4, 2, 80},
      {1, 193, 1, 1, 1},
      {1, 250, 2, 1, 64},
      {5, 31, 3, 3, 24},
      {1, 389, 2, 2, 17},
      {1, 1023, 1, 1, 64},
      // Values narrower than keys, as MLA has them, and wider.
      {2, 130, 4, 4, 192, 128},
      {1, 97, 4, 2, 24, 7},
      {1, 100, 2, 1, 5, 33},
  };
  for (const AttentionShape& s : shapes) {
    const Inputs in = make_inputs(s);
    CAPTURE(s.sequences, s.positions, s.heads, s.kv_heads, s.head_dim, s.value_dim);
    REQUIRE(difference(run(s, in), oracle(s, in.q, in.k, in.v, in.dout)) < tolerance);
  }
}

TEST_CASE("the comparison catches a mask that is off by one, a missing scale and a wrong head") {
  const AttentionShape s{1, 130, 4, 2, 8};
  const Inputs in = make_inputs(s);
  const Results<float> got = run(s, in);
  for (const Fault fault :
       {Fault::SeesOneKeyTooMany, Fault::MissesTheFirstKey, Fault::NoScale, Fault::NeighboursHead}) {
    REQUIRE(difference(got, oracle(s, in.q, in.k, in.v, in.dout, fault)) > 100 * tolerance);
  }
}

TEST_CASE("the plain form's gradients are those of central differences") {
  const AttentionShape s{2, 6, 4, 2, 3};
  const Inputs in = make_inputs(s);
  std::vector<double> q(in.q.begin(), in.q.end()), k(in.k.begin(), in.k.end()), v(in.v.begin(), in.v.end());
  const Results<double> twin = oracle(s, q, k, v, in.dout);
  const auto loss = [&](const std::vector<double>&) {
    const Results<double> r = oracle(s, q, k, v, in.dout);
    double sum = 0;
    for (std::size_t i = 0; i < r.out.size(); ++i) sum += r.out[i] * static_cast<double>(in.dout[i]);
    return sum;
  };
  const auto check = [&](std::vector<double>& x, const std::vector<double>& gradient) {
    for (std::size_t i = 0; i < x.size(); i += 5) {
      REQUIRE(central_difference(loss, x, i) == Approx(gradient[i]).margin(1e-8));
    }
  };
  check(q, twin.dq);
  check(k, twin.dk);
  check(v, twin.dv);
}

TEST_CASE("large scores neither overflow nor lose the largest") {
  const AttentionShape s{1, 200, 2, 1, 16};
  const Inputs in = make_inputs(s, 12);  // scores up to several hundred
  const Results<float> got = run(s, in);
  const Results<double> wanted = oracle(s, in.q, in.k, in.v, in.dout);
  // A score of 600 is known to 600 * 2^-24 or so, and its exponential to as many parts.
  REQUIRE(worst_error(got.out, wanted.out, 1.0) < 2e-3);
  REQUIRE(worst_error(got.log_sum_exp, wanted.log_sum_exp, 1.0) < tolerance);
}

TEST_CASE("a later token does not touch an earlier row") {
  const AttentionShape s{1, 205, 4, 2, 20};
  const Inputs in = make_inputs(s);
  const Results<float> before = run(s, in);
  for (const std::int64_t changed : {0, 1, 95, 96, 97, 150, 204}) {
    Inputs other = in;
    for (std::int64_t c = 0; c < s.kv_heads * s.head_dim; ++c) {
      other.k[usize(changed * s.kv_heads * s.head_dim + c)] += 3;
      other.v[usize(changed * s.kv_heads * s.head_dim + c)] -= 5;
    }
    const Results<float> after = run(s, other);
    const auto rows = [&](const std::vector<float>& x, std::int64_t begin, std::int64_t end) {
      const std::int64_t width = s.heads * s.head_dim;
      return std::vector<float>(x.begin() + begin * width, x.begin() + end * width);
    };
    REQUIRE(same_bits(rows(before.out, 0, changed), rows(after.out, 0, changed)));
    REQUIRE(same_bits(rows(before.dq, 0, changed), rows(after.dq, 0, changed)));
    // The row itself and the last one see it.
    REQUIRE_FALSE(same_bits(rows(before.out, changed, changed + 1), rows(after.out, changed, changed + 1)));
    REQUIRE_FALSE(same_bits(rows(before.out, 204, 205), rows(after.out, 204, 205)));
  }
}

TEST_CASE("attention is one result for every number of threads and vector width") {
  for (const AttentionShape& s : {AttentionShape{1, 300, 2, 1, 64}, AttentionShape{1, 97, 1, 1, 7},
                                  AttentionShape{3, 101, 4, 2, 20}, AttentionShape{1, 206, 5, 5, 40}}) {
    const Inputs in = make_inputs(s);
    REQUIRE(one_result([&] { return run(s, in).all(); }));
  }
}

TEST_CASE("a sequence's rows do not depend on the sequences beside it") {
  const AttentionShape s{4, 110, 4, 2, 24};
  const Inputs in = make_inputs(s);
  const Results<float> together = run(s, in);
  AttentionShape one = s;
  one.sequences = 1;
  for (std::int64_t b = 0; b < s.sequences; ++b) {
    const auto part = [&](const std::vector<float>& x) {
      const std::int64_t size = isize(x.size()) / s.sequences;
      return std::vector<float>(x.begin() + b * size, x.begin() + (b + 1) * size);
    };
    const Results<float> alone = run(one, {part(in.q), part(in.k), part(in.v), part(in.dout)});
    REQUIRE(same_bits(alone.out, part(together.out)));
    REQUIRE(same_bits(alone.log_sum_exp, part(together.log_sum_exp)));
    REQUIRE(same_bits(alone.dq, part(together.dq)));
    REQUIRE(same_bits(alone.dk, part(together.dk)));
    REQUIRE(same_bits(alone.dv, part(together.dv)));
  }
}

TEST_CASE("a NaN comes out where it is seen") {
  const AttentionShape s{1, 120, 1, 1, 8};
  Inputs in = make_inputs(s);
  in.k[usize(100 * s.head_dim)] = std::nanf("");
  const Results<float> got = run(s, in);
  for (std::int64_t i = 0; i < s.positions; ++i) {
    if (i < 96) REQUIRE(std::isfinite(got.out[usize(i * s.head_dim)]));
    if (i >= 100) REQUIRE(std::isnan(got.out[usize(i * s.head_dim)]));
  }
}

TEST_CASE("decoding gives the rows of the whole") {
  for (const AttentionShape& s :
       {AttentionShape{1, 1, 1, 1, 1}, AttentionShape{1, 230, 4, 2, 20}, AttentionShape{1, 97, 3, 1, 64},
        AttentionShape{1, 192, 2, 2, 5}, AttentionShape{1, 100, 2, 1, 24, 16}}) {
    const Inputs in = make_inputs(s);
    const Results<float> whole = run(s, in);
    // The caches have room for more positions than there are; what lies there must not be read.
    const std::int64_t capacity = s.positions + 3;
    const std::int64_t k_width = s.kv_heads * s.head_dim, v_width = s.kv_heads * s.value_width();
    std::vector<float> k_cache(in.k), v_cache(in.v);
    k_cache.resize(usize(capacity * k_width), std::nanf(""));
    v_cache.resize(usize(capacity * v_width), std::nanf(""));
    const Tensor k = view(k_cache, {capacity, k_width});
    const Tensor v = view(v_cache, {capacity, v_width});
    const std::int64_t width = s.heads * s.head_dim, out_width = s.heads * s.value_width();
    const auto decode = [&](std::int64_t first, std::int64_t rows) {
      const std::vector<float> q(in.q.begin() + first * width, in.q.begin() + (first + rows) * width);
      std::vector<float> out(usize(rows * out_width));
      attention_decode(s, view(q, {rows, width}), k, v, first + rows, view(out, {rows, out_width}));
      return out;
    };
    REQUIRE(worst_error(decode(0, s.positions), whole.out, 1.0) < tolerance);  // the prompt at once
    std::vector<float> one_by_one;
    for (std::int64_t i = 0; i < s.positions; ++i) {
      const std::vector<float> row = decode(i, 1);
      one_by_one.insert(one_by_one.end(), row.begin(), row.end());
    }
    REQUIRE(same_bits(one_by_one, decode(0, s.positions)));
    REQUIRE(one_result([&] { return decode(0, s.positions); }));
    // A cache that is one position behind is noticed.
    if (s.positions > 1) {
      const std::vector<float> q(in.q.begin() + width, in.q.begin() + 2 * width);
      std::vector<float> out(usize(out_width));
      attention_decode(s, view(q, {1, width}), k, v, 1, view(out, {1, out_width}));
      const std::vector<float> wanted(whole.out.begin() + out_width, whole.out.begin() + 2 * out_width);
      REQUIRE(worst_error(out, wanted, 1.0) > 100 * tolerance);
    }
  }
}

TEST_CASE("shapes that do not fit are told") {
  const AttentionShape s{1, 4, 3, 2, 4};
  const std::vector<float> q(48), kv(32);
  std::vector<float> out(48), log_sum_exp(12);
  Arena scratch(cpu_device());
  REQUIRE_THROWS_WITH(attention(s, view(q, {4, 12}), view(kv, {4, 8}), view(kv, {4, 8}), scratch, view(out, {4, 12}),
                                view(log_sum_exp, {3, 4})),
                      "attention: 3 heads cannot share 2 KV heads evenly");
  const AttentionShape other{1, 4, 2, 2, 4};
  REQUIRE_THROWS_WITH(attention(other, view(q, {4, 12}), view(kv, {4, 8}), view(kv, {4, 8}), scratch,
                                view(out, {4, 12}), view(log_sum_exp, {3, 4})),
                      "attention: q is [4, 12], wanted [4, 8]");
  REQUIRE_THROWS_WITH(
      attention_decode(other, view(kv, {4, 8}), view(kv, {4, 8}), view(kv, {4, 8}), 5, view(kv, {4, 8})),
      "attention_decode: 5 positions must be at least the 4 rows of q and at most the 4 that the caches hold");
}

TEST_CASE("an empty batch is no work") {
  const AttentionShape s{0, 16, 2, 1, 8};
  REQUIRE(run(s, make_inputs(s)).out.empty());
}

TEST_CASE("the multiply-adds of causal attention are counted") {
  // 3 positions see 1 + 2 + 3 keys; a product of width 2 is 4 operations; forward has two of them.
  REQUIRE(attention_flops({5, 3, 4, 2, 2}, false) == 5 * 4 * 6 * 4 * 2);
  REQUIRE(attention_flops({5, 3, 4, 2, 2}, true) == 2 * attention_flops({5, 3, 4, 2, 2}, false));
}
