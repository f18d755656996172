// Moves against the plain definition; sums and dots against double precision.
#include "layers/ops/rows.h"

#include "tests/support/catch.h"
#include "tests/support/op_test.h"

#include <algorithm>
#include <numeric>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

struct Case {
  std::int64_t slots, rows, width;
};
const std::vector<Case> cases = {{1, 1, 1}, {5, 3, 7}, {17, 40, 33}, {300, 64, 129}, {0, 4, 8}};

// A permutation's beginning: distinct rows.
std::vector<std::int32_t> distinct_indices(std::int64_t n, std::int64_t bound) {
  std::vector<std::int32_t> all(usize(bound));
  std::iota(all.begin(), all.end(), 0);
  const std::vector<float> keys = random_values(bound, 77);
  std::sort(all.begin(), all.end(), [&](std::int32_t a, std::int32_t b) { return keys[usize(a)] < keys[usize(b)]; });
  all.resize(usize(n));
  return all;
}

}  // namespace

TEST_CASE("gather") {
  for (const auto& [slots, rows, width] : cases) {
    const std::vector<float> x = random_values(rows * width, 1), scale = random_values(slots, 2);
    const std::vector<std::int32_t> index = random_indices(slots, rows, 3);
    std::vector<float> y(usize(slots * width)), scaled(y.size()), wanted, wanted_scaled;
    gather_rows(view(x, {rows, width}), view(index), view(y, {slots, width}));
    gather_rows_scaled(view(x, {rows, width}), view(index), view(scale), view(scaled, {slots, width}));
    for (std::int64_t i = 0; i < slots; ++i) {
      for (std::int64_t j = 0; j < width; ++j) {
        wanted.push_back(x[usize(index[usize(i)] * width + j)]);
        wanted_scaled.push_back(scale[usize(i)] * wanted.back());
      }
    }
    CHECK(same_bits(y, wanted));
    CHECK(same_bits(scaled, wanted_scaled));
  }
}

TEST_CASE("scatter puts back what gather took, and leaves other rows alone") {
  constexpr std::int64_t slots = 50, rows = 90, width = 19;
  const std::vector<std::int32_t> index = distinct_indices(slots, rows);
  const std::vector<float> x = random_values(slots * width, 4), scale = random_values(slots, 5);
  std::vector<float> y(usize(rows * width), 7.0f), back(x.size()), scaled = y;
  scatter_rows(view(x, {slots, width}), view(index), view(y, {rows, width}));
  gather_rows(view(y, {rows, width}), view(index), view(back, {slots, width}));
  CHECK(same_bits(back, x));
  CHECK(std::count(y.begin(), y.end(), 7.0f) == (rows - slots) * width);
  scatter_rows_scaled(view(x, {slots, width}), view(index), view(scale), view(scaled, {rows, width}));
  for (std::int64_t i = 0; i < slots; ++i) {
    for (std::int64_t j = 0; j < width; ++j) {
      REQUIRE(scaled[usize(index[usize(i)] * width + j)] == scale[usize(i)] * x[usize(i * width + j)]);
    }
  }
}

TEST_CASE("sums of listed rows") {
  for (const auto& [slots, rows, width] : cases) {
    std::vector<std::int32_t> row = random_indices(slots, rows, 6);
    if (slots > 4) row[3] = -1;  // a slot of no row
    const std::vector<float> x = random_values(slots * width, 7);
    const RowLists lists = row_lists(row, rows);
    std::vector<float> y(usize(rows * width), 9.0f), wanted;
    sum_rows(view(x, {slots, width}), view(lists.order), view(lists.begin), view(y, {rows, width}));
    for (std::int64_t r = 0; r < rows; ++r) {
      std::vector<float> sum(usize(width), 0.0f);
      for (std::int64_t i = 0; i < slots; ++i) {
        if (row[usize(i)] != r) continue;
        for (std::int64_t j = 0; j < width; ++j) sum[usize(j)] += x[usize(i * width + j)];
      }
      wanted.insert(wanted.end(), sum.begin(), sum.end());
    }
    CHECK(same_bits(y, wanted));
  }
}

TEST_CASE("the order of a sum is ascending: another one has other bits") {
  const std::vector<float> x = {1e8f, 1.0f, -1e8f};
  const std::vector<std::int32_t> ascending = {0, 1, 2}, other = {0, 2, 1}, begin = {0, 3};
  std::vector<float> y(1);
  sum_rows(view(x, {3, 1}), view(ascending), view(begin), view(y, {1, 1}));
  CHECK(y[0] == 0);
  sum_rows(view(x, {3, 1}), view(other), view(begin), view(y, {1, 1}));
  CHECK(y[0] == 1);
}

TEST_CASE("dot products of rows") {
  for (const auto& [slots, rows, width] : cases) {
    const std::vector<float> a = random_values(rows * width, 8), b = random_values(slots * width, 9);
    const std::vector<std::int32_t> row = random_indices(slots, rows, 10);
    std::vector<float> out(usize(slots));
    dot_rows(view(a, {rows, width}), view(row), view(b, {slots, width}), view(out));
    std::vector<double> wanted;
    for (std::int64_t i = 0; i < slots; ++i) {
      double dot = 0;
      for (std::int64_t j = 0; j < width; ++j) {
        dot += double(a[usize(row[usize(i)] * width + j)]) * b[usize(i * width + j)];
      }
      wanted.push_back(dot);
    }
    CHECK(worst_error(out, wanted, 1.0) < 2e-6);
  }
}

TEST_CASE("one result for every vector width and thread count") {
  constexpr std::int64_t slots = 700, rows = 90, width = 83;
  const std::vector<float> x = random_values(rows * width, 11), b = random_values(slots * width, 12);
  const std::vector<float> scale = random_values(slots, 13);
  const std::vector<std::int32_t> index = random_indices(slots, rows, 14);
  const RowLists lists = row_lists(index, rows);
  std::vector<float> out(usize(slots)), moved(b.size()), sums(x.size());
  CHECK(one_result([&] {
    return dot_rows(view(x, {rows, width}), view(index), view(b, {slots, width}), view(out)), out;
  }));
  CHECK(one_result([&] {
    gather_rows_scaled(view(x, {rows, width}), view(index), view(scale), view(moved, {slots, width}));
    return moved;
  }));
  CHECK(one_result([&] {
    sum_rows(view(b, {slots, width}), view(lists.order), view(lists.begin), view(sums, {rows, width}));
    return sums;
  }));
}

TEST_CASE("wrong indices and shapes are told") {
  const std::vector<float> x(12), y(8);
  const std::vector<std::int32_t> beyond = {0, 3}, below = {-1, 0}, twice = {1, 1}, begin = {0, 1, 3};
  const Tensor x34 = view(x, {3, 4}), y24 = view(y, {2, 4});
  CHECK_THROWS_WITH(gather_rows(x34, view(beyond), y24), "gather_rows: index[1] is 3, not one of the 3 rows");
  CHECK_THROWS_WITH(scatter_rows(y24, view(below), x34), "scatter_rows: index[0] is -1, not one of the 3 rows");
  CHECK_THROWS_WITH(scatter_rows(y24, view(twice), x34),
                    "scatter_rows: row 1 is named twice, the second time by index[1]");
  CHECK_THROWS_WITH(sum_rows(y24, view(twice), view(begin), y24),
                    "sum_rows: the list of row 1 goes from 1 to 3, but there are 2 slots");
  CHECK_THROWS_WITH(gather_rows(x34, view(twice), view(y, {4, 2})), "gather_rows: x is [3, 4], wanted [3, 2]");
  const std::vector<float> out(2);
  CHECK_THROWS_WITH(dot_rows(x34, view(beyond), y24, view(out)), "dot_rows: row[1] is 3, not one of the 3 rows");
}
