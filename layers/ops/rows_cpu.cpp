// Copies and elementwise sums: plain loops that the compiler vectorises, and whose bits no vector width can change.
#include "layers/ops/rows_cpu.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace switchyard::cpu {
namespace {

constexpr std::int64_t elements_worth_threads = 1 << 14;

// to = *scale * from, or from where there is no scale.
void move_row(const float* from, const float* scale, std::int64_t width, float* to) {
  if (scale == nullptr) {
    std::memcpy(to, from, usize(width) * sizeof(float));
    return;
  }
  for (std::int64_t j = 0; j < width; ++j) to[j] = *scale * from[j];
}

// Two indices with one target would be a race between threads.
void check_distinct(const char* op, const Tensor& index, std::int64_t rows) {
  std::vector<bool> named(usize(rows), false);
  const std::int32_t* indices = index.i32();
  for (std::int64_t i = 0; i < index.size(); ++i) {
    require(!named[usize(indices[i])], "{}: row {} is named twice, the second time by index[{}]", op, indices[i], i);
    named[usize(indices[i])] = true;
  }
}

}  // namespace

void check_indices(const char* op, const char* name, const Tensor& index, std::int64_t rows) {
  const std::int32_t* indices = index.i32();
  for (std::int64_t i = 0; i < index.size(); ++i) {
    require(indices[i] >= 0 && indices[i] < rows, "{}: {}[{}] is {}, not one of the {} rows", op, name, i, indices[i],
            rows);
  }
}

void gather_rows(const char* op, const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y) {
  check_indices(op, "index", index, x.dim(0));
  const std::int64_t slots = y.dim(0), width = y.dim(1);
  const std::int32_t* indices = index.i32();
  const float *from = x.f32(), *scales = scale.defined() ? scale.f32() : nullptr;
  float* to = y.f32();
#pragma omp parallel for schedule(static) if (slots * width >= elements_worth_threads)
  for (std::int64_t i = 0; i < slots; ++i) {
    move_row(from + indices[i] * width, scales == nullptr ? nullptr : scales + i, width, to + i * width);
  }
}

void scatter_rows(const char* op, const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y) {
  check_indices(op, "index", index, y.dim(0));
  check_distinct(op, index, y.dim(0));
  const std::int64_t slots = x.dim(0), width = x.dim(1);
  const std::int32_t* indices = index.i32();
  const float *from = x.f32(), *scales = scale.defined() ? scale.f32() : nullptr;
  float* to = y.f32();
#pragma omp parallel for schedule(static) if (slots * width >= elements_worth_threads)
  for (std::int64_t i = 0; i < slots; ++i) {
    move_row(from + i * width, scales == nullptr ? nullptr : scales + i, width, to + indices[i] * width);
  }
}

void sum_rows(const Tensor& x, const Tensor& order, const Tensor& begin, Tensor y) {
  const std::int64_t slots = x.dim(0), rows = y.dim(0), width = y.dim(1);
  const std::int32_t *list = order.i32(), *starts = begin.i32();
  for (std::int64_t r = 0; r < rows; ++r) {
    require(starts[r] >= 0 && starts[r] <= starts[r + 1] && starts[r + 1] <= slots,
            "sum_rows: the list of row {} goes from {} to {}, but there are {} slots", r, starts[r], starts[r + 1],
            slots);
  }
  check_indices("sum_rows", "order", order.slice(0, starts[rows]), slots);
  const float* from = x.f32();
  float* to = y.f32();
#pragma omp parallel for schedule(static) if (slots * width >= elements_worth_threads)
  for (std::int64_t r = 0; r < rows; ++r) {
    float* sum = to + r * width;
    std::fill_n(sum, width, 0.0f);
    for (std::int32_t i = starts[r]; i < starts[r + 1]; ++i) {
      const float* row = from + list[i] * width;
      for (std::int64_t j = 0; j < width; ++j) sum[j] += row[j];
    }
  }
}

}  // namespace switchyard::cpu
