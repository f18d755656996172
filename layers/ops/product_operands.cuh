// Where the kernels for matrix products find their numbers, and how they bring them into shared memory.
//
// A product c[i, j] = sum over p of a(i, p) b(j, p) has lines (rows of A, columns of B) and positions p along the sum.
// An operand lies in memory line by line, or position by position.
#pragma once

#include "layers/ops/mma.cuh"

#include <cstdint>

namespace switchyard::cuda {

// One block's part of an operand. By lines: element (line, p) at first[line * stride + p]; by positions: at
// first[row * stride + line], where the positions say which row.
template <class T>
struct Operand {
  const T* first;
  std::int64_t stride;
  int lines;  // there are no more: the rest of a tile is zero
};

// Positions that are rows 0 to count - 1.
struct PlainPositions {
  int count;
  // -1 where the sum has ended. A thread asks in ascending order.
  __device__ __forceinline__ int row(int p) { return p < count ? p : -1; }
};

// 16 bytes of an operand, of which the first `valid` elements are there: the rest becomes zero. Aligned: `from` is, and
// all elements are there or none.
template <bool Aligned, class T>
__device__ __forceinline__ Vector<T> load_elements(const T* from, int valid) {
  constexpr int size = vector_size<T>;
  if constexpr (Aligned) {
    if (valid > 0) return Vector<T>::load(from);
  }
  Vector<T> v;
#pragma unroll
  for (int e = 0; e < size; ++e) v.at[e] = !Aligned && e < valid ? from[e] : from_float<T>(0);
  return v;
}
// The same, to shared memory: under way when this returns where Aligned, else there.
template <bool Aligned>
__device__ __forceinline__ void copy_elements(bf16* to_shared, const bf16* from, int valid) {
  if constexpr (Aligned) {
    copy_async<16>(to_shared, from, valid > 0);
  } else {
    load_elements<false>(from, valid).store(to_shared);
  }
}

}  // namespace switchyard::cuda
