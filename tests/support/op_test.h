// What the tests of ops share: tensors with values, errors against a double-precision twin, and one result for every
// vector width and thread count.
#pragma once

#include "layers/tensor/random.h"
#include "layers/tensor/tensor.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

#include <hwy/targets.h>
#include <omp.h>

namespace switchyard::test {

// Normal numbers; the seed names them.
inline std::vector<float> random_values(std::int64_t n, std::uint64_t seed, double deviation = 1) {
  std::vector<float> values(usize(n));
  fill_normal(Random(seed, "test values"), 0, n, deviation, values.data());
  return values;
}

// Integers in [0, bound).
inline std::vector<std::int32_t> random_indices(std::int64_t n, std::int64_t bound, std::uint64_t seed) {
  const Random random(seed, "test indices");
  std::vector<std::int32_t> values;
  for (std::int64_t i = 0; i < n; ++i) {
    values.push_back(
        static_cast<std::int32_t>(random.bits(static_cast<std::uint64_t>(i)) % static_cast<std::uint64_t>(bound)));
  }
  return values;
}

// The i with row[i] == r, ascending, are order[begin[r]] .. order[begin[r + 1] - 1]. What is in no list leaves -7 at
// the end of `order`.
struct RowLists {
  std::vector<std::int32_t> order, begin;
};
inline RowLists row_lists(const std::vector<std::int32_t>& row, std::int64_t rows) {
  RowLists lists;
  for (std::int64_t r = 0; r < rows; ++r) {
    lists.begin.push_back(static_cast<std::int32_t>(lists.order.size()));
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (row[i] == r) lists.order.push_back(static_cast<std::int32_t>(i));
    }
  }
  lists.begin.push_back(static_cast<std::int32_t>(lists.order.size()));
  lists.order.resize(row.size(), -7);
  return lists;
}

// A view of values that the caller keeps.
template <class T>
Tensor view(const std::vector<T>& values, Shape shape) {
  require(shape.size() == isize(values.size()), "{} values for a tensor {}", values.size(), shape.to_string());
  return Tensor(const_cast<T*>(values.data()), dtype_of<T>(), shape, cpu_device());
}
template <class T>
Tensor view(const std::vector<T>& values) {
  return view(values, Shape{isize(values.size())});
}

// The largest |got - wanted| / (|wanted| + floor); infinity where the sizes differ or a number is NaN.
template <class A, class B>
double worst_error(const std::vector<A>& got, const std::vector<B>& wanted, double floor) {
  if (got.size() != wanted.size()) return std::numeric_limits<double>::infinity();
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double w = static_cast<double>(wanted[i]);
    const double error = std::abs(static_cast<double>(got[i]) - w) / (std::abs(w) + floor);
    if (!(error <= worst)) worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
  }
  return worst;
}

// Are they equal bit for bit?
inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
  });
}

// Vectors of the baseline's width instead of the widest, for the length of a block.
class BaselineVectors {
 public:
  explicit BaselineVectors(bool on) {
    hwy::SetSupportedTargetsForTest(on ? HWY_AVX2 : 0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  ~BaselineVectors() {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
  BaselineVectors(const BaselineVectors&) = delete;
  BaselineVectors& operator=(const BaselineVectors&) = delete;
};

// Law 1 for one op: is run() (a vector of floats) the same bits for 1, 2 and 3 threads and for every vector width?
template <class F>
bool one_result(const F& run) {
  const int threads_before = omp_get_max_threads();
  omp_set_num_threads(1);
  const std::vector<float> wanted = run();
  bool same = !wanted.empty();
  for (const bool baseline : {false, true}) {
    const BaselineVectors vectors(baseline);
    for (const int threads : {1, 2, 3}) {
      omp_set_num_threads(threads);
      same = same_bits(run(), wanted) && same;
    }
  }
  omp_set_num_threads(threads_before);
  return same;
}

// The derivative of f with respect to x[i], for a smooth f worked out in double.
template <class F>
double central_difference(const F& f, std::vector<double>& x, std::size_t i, double step = 1e-5) {
  const double kept = x[i];
  x[i] = kept + step;
  const double above = f(x);
  x[i] = kept - step;
  const double below = f(x);
  x[i] = kept;
  return (above - below) / (2 * step);
}

}  // namespace switchyard::test
