// Matrix products against a loop of std::fmaf: the same bits, for every shape, row count, thread count and vector
// width.
#include "layers/ops/gemm.h"

#include "comm/reduce/exact.h"
#include "tests/support/catch.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include <hwy/highway.h>
#include <omp.h>

using namespace switchyard;

namespace {

using Floats = std::vector<float>;

Floats some_floats(std::int64_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  Floats x(usize(n));
  for (float& value : x) value = uniform(random);
  return x;
}

Tensor tensor(Floats& values, std::int64_t rows, std::int64_t cols) {
  REQUIRE(isize(values.size()) == rows * cols);
  return Tensor(values.data(), DType::F32, {rows, cols}, cpu_device());
}

bool same_bits(const Floats& a, const Floats& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
  });
}

// y[m, n] += sum over k of x[m, k] * w[n, k], one chain over ascending k.
Floats chain_product(const Floats& x, const Floats& w, Floats y, std::int64_t m, std::int64_t k, std::int64_t n) {
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      float c = y[usize(i * n + j)];
      for (std::int64_t l = 0; l < k; ++l) c = std::fmaf(x[usize(i * k + l)], w[usize(j * k + l)], c);
      y[usize(i * n + j)] = c;
    }
  }
  return y;
}

Floats transposed(const Floats& x, std::int64_t rows, std::int64_t cols) {
  Floats result(x.size());
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) result[usize(j * rows + i)] = x[usize(i * cols + j)];
  }
  return result;
}

PackedMatrix packed_transposed(Floats& w, std::int64_t n, std::int64_t k) {
  PackedMatrix packed;
  packed.pack_transposed(tensor(w, n, k));
  return packed;
}

// Runs `body` with the widest vectors that there are and with AVX2 only, on 1, 2 and 3 threads.
template <class Body>
void on_all_machines(Body&& body) {
  const int threads = omp_get_max_threads();
  for (const std::int64_t target : {std::int64_t(0), std::int64_t(HWY_AVX2)}) {
    hwy::SetSupportedTargetsForTest(target);
    for (const int count : {1, 2, 3}) {
      omp_set_num_threads(count);
      body();
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  omp_set_num_threads(threads);
}

struct Gradient {
  std::vector<std::int64_t> exact;
  std::atomic<bool> non_finite{false};
  GradientSum sum;
  explicit Gradient(std::int64_t size, float limit = 8192.0f) : exact(usize(size), 0) {
    sum.exact = exact.data();
    sum.limit = limit;
    sum.non_finite = &non_finite;
    sum.size = size;
  }
};

// Rounds x * 2^50 to an integer, ties to even; long double holds every fp32 times 2^50 exactly.
std::int64_t fixed_oracle(float x) {
  return std::llrintl(static_cast<long double>(x) * 0x1p50L);
}

// What one segment of rows adds, left out where it is not under `limit`.
void add_chain_gradient(const Floats& dy, const Floats& x, std::int64_t n, std::int64_t k, std::int64_t begin,
                        std::int64_t end, float limit, std::vector<std::int64_t>& sum) {
  if (begin == end) return;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = 0; j < k; ++j) {
      float c = 0;
      for (std::int64_t r = begin; r < end; ++r) c = std::fmaf(dy[usize(r * n + i)], x[usize(r * k + j)], c);
      if (std::abs(c) < limit) sum[usize(i * k + j)] += fixed_oracle(c);
    }
  }
}

}  // namespace

TEST_CASE("every element is one chain over k, for odd sizes") {
  struct Size {
    std::int64_t m, k, n;
  };
  for (const auto& [m, k, n] : {Size{1, 1, 1},
                                {1, 3, 7},
                                {2, 385, 17},
                                {3, 769, 1},
                                {5, 17, 100},
                                {6, 384, 16},
                                {7, 385, 33},
                                {13, 64, 65},
                                {14, 70, 96},
                                {15, 769, 31},
                                {28, 5, 200},
                                {29, 100, 48},
                                {169, 33, 70},
                                {340, 400, 18}}) {
    CAPTURE(m, k, n);
    Floats x = some_floats(m * k, 1);
    Floats w = some_floats(n * k, 2);
    Floats start = some_floats(m * n, 3);
    const Floats fresh = chain_product(x, w, Floats(usize(m * n), 0.0f), m, k, n);
    const Floats added = chain_product(x, w, start, m, k, n);
    Floats w_kn = transposed(w, n, k);
    on_all_machines([&] {
      Floats y(usize(m * n), std::numeric_limits<float>::quiet_NaN());
      const PackedMatrix forward = packed_transposed(w, n, k);
      gemm(tensor(x, m, k), forward, tensor(y, m, n));
      CHECK(same_bits(y, fresh));
      y = start;
      gemm(tensor(x, m, k), forward, tensor(y, m, n), true);
      CHECK(same_bits(y, added));
      PackedMatrix other;
      other.pack(tensor(w_kn, k, n));
      gemm(tensor(x, m, k), other, tensor(y, m, n));
      CHECK(same_bits(y, fresh));
    });
  }
}

TEST_CASE("the chain is close to the product in double precision, and a wrong element is seen") {
  const std::int64_t m = 9, k = 500, n = 21;
  Floats x = some_floats(m * k, 4);
  Floats w = some_floats(n * k, 5);
  Floats y(usize(m * n));
  gemm(tensor(x, m, k), packed_transposed(w, n, k), tensor(y, m, n));
  const auto worst = [&] {
    double result = 0;
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        double c = 0;
        for (std::int64_t l = 0; l < k; ++l) c += double(x[usize(i * k + l)]) * double(w[usize(j * k + l)]);
        result = std::max(result, std::abs(c - double(y[usize(i * n + j)])));
      }
    }
    return result;
  };
  CHECK(worst() < 1e-4);
  const Floats right = y;
  y[100] = std::nextafter(y[100], 2.0f);
  CHECK_FALSE(same_bits(y, right));
  y[100] += 1e-3f;
  CHECK(worst() > 5e-4);
}

TEST_CASE("a row's bits do not depend on the rows beside it") {
  const std::int64_t rows = 140, k = 77, n = 50;
  Floats x = some_floats(rows * k, 6);
  Floats w = some_floats(n * k, 7);
  const PackedMatrix packed = packed_transposed(w, n, k);
  const Floats all = chain_product(x, w, Floats(usize(rows * n), 0.0f), rows, k, n);
  for (std::int64_t m = 1; m <= 70; ++m) {
    for (const std::int64_t offset : {std::int64_t(0), m % 5, m}) {
      Floats y(usize(m * n));
      gemm(tensor(x, rows, k).slice(offset, m), packed, tensor(y, m, n));
      if (!same_bits(y, Floats(all.begin() + offset * n, all.begin() + (offset + m) * n))) {
        FAIL(m << " rows from " << offset);
      }
    }
  }
}

TEST_CASE("grouped products: empty groups, one with nearly all rows, rows outside") {
  const std::int64_t k = 130, n = 90, rows = 420;
  const std::vector<std::int64_t> begin = {2, 2, 3, 400, 400, 417};
  Floats x = some_floats(rows * k, 8);
  std::vector<Floats> w;
  std::vector<PackedMatrix> packed;
  for (unsigned g = 0; g < 5; ++g) {
    w.push_back(some_floats(n * k, 10 + g));
    packed.push_back(packed_transposed(w.back(), n, k));
  }
  std::vector<const PackedMatrix*> b;
  for (const PackedMatrix& one : packed) b.push_back(&one);

  Floats wanted(usize(rows * n), -1.0f);
  for (std::size_t g = 0; g < 5; ++g) {
    const std::int64_t m = begin[g + 1] - begin[g];
    const Floats part(x.begin() + begin[g] * k, x.begin() + begin[g + 1] * k);
    const Floats y = chain_product(part, w[g], Floats(usize(m * n), 0.0f), m, k, n);
    std::copy(y.begin(), y.end(), wanted.begin() + begin[g] * n);
  }
  on_all_machines([&] {
    Floats y(usize(rows * n), -1.0f);
    grouped_gemm(tensor(x, rows, k), begin, b, tensor(y, rows, n));
    CHECK(same_bits(y, wanted));
  });
}

TEST_CASE("packing again uses the same memory and the new values") {
  Floats w = some_floats(40 * 30, 20);
  PackedMatrix packed = packed_transposed(w, 40, 30);
  CHECK(packed.k() == 30);
  CHECK(packed.n() == 40);
  const float* const memory = packed.data();
  w[0] += 1.0f;
  packed.pack_transposed(tensor(w, 40, 30));
  CHECK(packed.data() == memory);
  Floats x = some_floats(30, 21);
  Floats y(40);
  gemm(tensor(x, 1, 30), packed, tensor(y, 1, 40));
  CHECK(same_bits(y, chain_product(x, w, Floats(40, 0.0f), 1, 30, 40)));
}

TEST_CASE("weight gradients are rounded chains, one a segment") {
  struct Size {
    std::int64_t n, k;
  };
  // Short segments together, one longer than a block of k, empty ones, and rows that belong to nobody.
  const std::vector<std::int64_t> segments = {3, 4, 4, 9, 30, 30, 430, 437, 1490, 1491};
  const std::vector<std::int64_t> groups = {0, 3, 3, 5, 9};
  const std::int64_t rows = 1495;
  for (const auto& [n, k] : {Size{1, 1}, {7, 17}, {33, 48}, {17, 70}, {170, 35}, {15, 600}}) {
    CAPTURE(n, k);
    Floats dy = some_floats(rows * n, 30);
    Floats x = some_floats(rows * k, 31);
    std::vector<std::vector<std::int64_t>> wanted;
    for (std::size_t g = 0; g + 1 < groups.size(); ++g) {
      wanted.emplace_back(usize(n * k), 7);
      for (std::int64_t s = groups[g]; s < groups[g + 1]; ++s) {
        add_chain_gradient(dy, x, n, k, segments[usize(s)], segments[usize(s + 1)], 8192.0f, wanted.back());
      }
    }
    on_all_machines([&] {
      std::vector<std::unique_ptr<Gradient>> gradients;
      std::vector<const GradientSum*> sums;
      for (std::size_t g = 0; g < wanted.size(); ++g) {
        gradients.push_back(std::make_unique<Gradient>(n * k));
        std::fill(gradients.back()->exact.begin(), gradients.back()->exact.end(), 7);
        sums.push_back(&gradients.back()->sum);
      }
      grouped_weight_gradient(tensor(dy, rows, n), tensor(x, rows, k), segments, groups, sums);
      for (std::size_t g = 0; g < wanted.size(); ++g) {
        CHECK(gradients[g]->exact == wanted[g]);
        CHECK_FALSE(gradients[g]->non_finite);
      }
    });
  }
}

TEST_CASE("a segment whose rows lie in several ranges is one chain over them in order") {
  const std::int64_t rows = 3000, n = 33, k = 70;
  Floats dy = some_floats(rows * n, 50);
  Floats x = some_floats(rows * k, 51);
  const std::vector<RowRange> ranges = {{0, 5},     {40, 41}, {7, 7},       {100, 190},  {50, 60},
                                        {200, 900}, {10, 30}, {1000, 2100}, {2500, 2700}};
  const std::vector<std::int64_t> segments = {0, 3, 5, 5, 7, 9};  // the last one is longer than a block of k
  const std::vector<std::int64_t> groups = {0, 2, 5};
  const auto gathered = [&](const Floats& from, std::int64_t width, std::int64_t first, std::int64_t last) {
    Floats result;
    for (std::int64_t i = first; i < last; ++i) {
      result.insert(result.end(), from.begin() + ranges[usize(i)].begin * width,
                    from.begin() + ranges[usize(i)].end * width);
    }
    return result;
  };
  std::vector<std::vector<std::int64_t>> wanted;
  for (std::size_t g = 0; g + 1 < groups.size(); ++g) {
    wanted.emplace_back(usize(n * k), 0);
    for (std::int64_t s = groups[g]; s < groups[g + 1]; ++s) {
      const Floats dy_rows = gathered(dy, n, segments[usize(s)], segments[usize(s + 1)]);
      const Floats x_rows = gathered(x, k, segments[usize(s)], segments[usize(s + 1)]);
      add_chain_gradient(dy_rows, x_rows, n, k, 0, isize(dy_rows.size()) / n, 8192.0f, wanted.back());
    }
  }
  on_all_machines([&] {
    Gradient first(n * k);
    Gradient second(n * k);
    const std::vector<const GradientSum*> sums = {&first.sum, &second.sum};
    grouped_weight_gradient(tensor(dy, rows, n), tensor(x, rows, k), ranges, segments, groups, sums);
    CHECK(first.exact == wanted[0]);
    CHECK(second.exact == wanted[1]);
    Gradient turned(n * k);
    const std::vector<RowRange> other_order = {{2500, 2700}, {1000, 2100}};
    const std::vector<std::int64_t> one = {0, 2};
    const std::vector<std::int64_t> alone = {0, 1};
    const std::vector<const GradientSum*> turned_sum = {&turned.sum};
    grouped_weight_gradient(tensor(dy, rows, n), tensor(x, rows, k), other_order, one, alone, turned_sum);
    Gradient straight(n * k);
    const std::vector<RowRange> order = {{1000, 2100}, {2500, 2700}};
    const std::vector<const GradientSum*> straight_sum = {&straight.sum};
    grouped_weight_gradient(tensor(dy, rows, n), tensor(x, rows, k), order, one, alone, straight_sum);
    CHECK(turned.exact != straight.exact);  // the order is seen
  });
}

TEST_CASE("fast gradients are the same chains, added in fp32") {
  const std::int64_t rows = 500, n = 19, k = 37;
  Floats dy = some_floats(rows * n, 40);
  Floats x = some_floats(rows * k, 41);
  const Floats start = some_floats(n * k, 42);
  const Floats chain =
      chain_product(transposed(dy, rows, n), transposed(x, rows, k), Floats(usize(n * k), 0.0f), n, rows, k);
  Floats wanted = start;
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += chain[i];
  on_all_machines([&] {
    Floats sum = start;
    GradientSum gradient;
    gradient.plain = sum.data();
    gradient.size = n * k;
    weight_gradient(tensor(dy, rows, n), tensor(x, rows, k), gradient);
    CHECK(same_bits(sum, wanted));
  });
}

TEST_CASE("partials that are NaN or too large are left out of a weight gradient and told") {
  const std::int64_t rows = 20, n = 30, k = 40;
  const float limit = exact_limit(4);
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e9f, 3.0f}) {
    CAPTURE(bad);
    Floats dy = some_floats(rows * n, 50);
    Floats x = some_floats(rows * k, 51);
    dy[usize(7 * n + 4)] = bad;  // row 4 of the gradient
    x[usize(7 * k + 39)] = 900.0f;
    std::vector<std::int64_t> wanted(usize(n * k), 0);
    add_chain_gradient(dy, x, n, k, 0, rows, limit, wanted);
    on_all_machines([&] {
      Gradient gradient(n * k, limit);
      weight_gradient(tensor(dy, rows, n), tensor(x, rows, k), gradient.sum);
      CHECK(gradient.exact == wanted);
      CHECK(gradient.non_finite);
    });
  }
}

TEST_CASE("products that cannot be are refused") {
  Floats x(12), w(12), y(12);
  const PackedMatrix b = packed_transposed(w, 4, 3);
  CHECK_THROWS_AS(gemm(tensor(x, 3, 4), b, tensor(y, 3, 4)), Error);
  CHECK_THROWS_AS(gemm(tensor(x, 4, 3), b, tensor(y, 3, 4)), Error);
  const std::vector<const PackedMatrix*> two = {&b, &b};
  Floats y16(16);
  for (const std::vector<std::int64_t>& begin : {std::vector<std::int64_t>{0, 4}, {0, 3, 2}, {0, 2, 5}, {-1, 2, 4}}) {
    CHECK_THROWS_AS(grouped_gemm(tensor(x, 4, 3), begin, two, tensor(y16, 4, 4)), Error);
  }
  Gradient gradient(11);
  CHECK_THROWS_AS(weight_gradient(tensor(x, 3, 4), tensor(y, 3, 4), gradient.sum), Error);
}

TEST_CASE("the measured peak is a rate that a core can have") {
  const double one = measure_peak_gflops(1, 0.01);
  CHECK(one > 0.1);
  CHECK(one < 2000.0);
}
