#include "layers/ops/embedding_cpu.h"

#include "layers/ops/embedding.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include <omp.h>

namespace switchyard::cpu {
void embedding(const Tensor& tokens, const Tensor& table, Tensor y) {
  check_tokens({tokens.i32(), usize(tokens.size())}, table.dim(0));
  const std::int64_t count = y.dim(0), width = y.dim(1);
  const std::int32_t* token = tokens.i32();
  const float* rows = table.f32();
  float* to = y.f32();
#pragma omp parallel for schedule(static) if (count * width >= 1 << 14)
  for (std::int64_t t = 0; t < count; ++t) {
    std::memcpy(to + t * width, rows + token[t] * width, usize(width) * sizeof(float));
  }
}

void embedding_backward(const Tensor& dy, const Tensor& tokens, const GradientSum& dtable) {
  const std::int64_t count = dy.dim(0), width = dy.dim(1);
  check_tokens({tokens.i32(), usize(tokens.size())}, dtable.size / width);
  const std::int32_t* token = tokens.i32();

  // Positions by token, in token order; begin[k] is where the k-th token that occurs has its positions.
  std::vector<std::int64_t> positions(usize(count));
  std::iota(positions.begin(), positions.end(), 0);
  std::stable_sort(positions.begin(), positions.end(),
                   [&](std::int64_t a, std::int64_t b) { return token[a] < token[b]; });
  std::vector<std::int64_t> begin;
  for (std::int64_t i = 0; i < count; ++i) {
    if (i == 0 || token[positions[usize(i)]] != token[positions[usize(i - 1)]]) begin.push_back(i);
  }
  const std::int64_t distinct = isize(begin.size());
  begin.push_back(count);

  const float* from = dy.f32();
  const int threads = count * width >= 1 << 14 ? omp_get_max_threads() : 1;
  // A row for each thread, made before they start: what is thrown inside a parallel region ends the program.
  std::vector<float> sums(usize(threads * width));
#pragma omp parallel num_threads(threads)
  {
    float* const sum = sums.data() + omp_get_thread_num() * width;
    // A common token has hundreds of rows, a rare one has one.
#pragma omp for schedule(dynamic, 8)
    for (std::int64_t k = 0; k < distinct; ++k) {
      std::fill_n(sum, width, 0.0f);
      for (std::int64_t i = begin[usize(k)]; i < begin[usize(k + 1)]; ++i) {
        const float* row = from + positions[usize(i)] * width;
        for (std::int64_t j = 0; j < width; ++j) sum[j] += row[j];
      }
      const std::int64_t id = token[positions[usize(begin[usize(k)])]];
      add_partial(dtable.part(id * width, width), sum, width);
    }
  }
}

}  // namespace switchyard::cpu
