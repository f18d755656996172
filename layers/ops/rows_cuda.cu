#include "layers/ops/row_blocks.cuh"
#include "layers/ops/rows_cuda.h"

namespace switchyard::cuda {
namespace {

constexpr int threads = row_block_threads;

// y[i] = scale[i] x[index[i]] (Gather), y[index[i]] = scale[i] x[i] (otherwise); `rows`: how many the indices name.
template <bool Gather, bool Scaled, class T, int N>
__global__ void __launch_bounds__(threads)
    move_kernel(const T* __restrict__ x, const std::int32_t* __restrict__ index, const float* __restrict__ scale,
                std::int64_t slots, std::int64_t rows, int width, T* __restrict__ y) {
  const RowThread me = row_thread<N>();
  if (me.row >= slots) return;
  const std::int32_t named = index[me.row];
  const bool known = named >= 0 && named < rows;
  if (!Gather && !known) return;
  const T* const from = x + (Gather ? std::int64_t{named} : me.row) * width;
  T* const to = y + (Gather ? me.row : std::int64_t{named}) * width;
  const float factor = Scaled ? scale[me.row] : 1.0F;
#pragma unroll 4
  for (int i = me.begin; i < width; i += me.step) {
    Vector<T, N> v;
    if (known) {
      v = Vector<T, N>::load(from + i);
    } else {
#pragma unroll
      for (int e = 0; e < N; ++e) v.at[e] = from_float<T>(nanf(""));
    }
    if constexpr (Scaled) {
#pragma unroll
      for (int e = 0; e < N; ++e) v.at[e] = from_float<T>(factor * to_float(v.at[e]));
    }
    v.store(to + i);
  }
}

// y[r] = the sum of x[order[k]] over begin[r] <= k < begin[r + 1], in that order.
template <class T, int N>
__global__ void __launch_bounds__(threads)
    sum_kernel(const T* __restrict__ x, const std::int32_t* __restrict__ order, const std::int32_t* __restrict__ begin,
               std::int64_t rows, int width, T* __restrict__ y) {
  const RowThread me = row_thread<N>();
  if (me.row >= rows) return;
  const std::int32_t first = begin[me.row];
  const std::int32_t end = begin[me.row + 1];
  for (int i = me.begin; i < width; i += me.step) {
    float sum[N] = {};
#pragma unroll 4
    for (std::int32_t k = first; k < end; ++k) {
      const auto v = Vector<T, N>::load(x + std::int64_t{order[k]} * width + i);
#pragma unroll
      for (int e = 0; e < N; ++e) sum[e] += to_float(v.at[e]);
    }
    Vector<T, N> out;
#pragma unroll
    for (int e = 0; e < N; ++e) out.at[e] = from_float<T>(sum[e]);
    out.store(y + me.row * width + i);
  }
}

// A warp a slot.
template <class T, int N>
__global__ void __launch_bounds__(threads)
    dot_kernel(const T* __restrict__ a, const std::int32_t* __restrict__ row, const T* __restrict__ b,
               std::int64_t slots, std::int64_t rows, int width, float* __restrict__ out) {
  const std::int64_t slot = std::int64_t{blockIdx.x} * (threads / warp_size) + threadIdx.x / warp_size;
  if (slot >= slots) return;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const std::int32_t named = row[slot];
  const bool known = named >= 0 && named < rows;
  const T* const x = a + (known ? std::int64_t{named} : 0) * width;
  const T* const y = b + slot * width;
  float sum = 0;
  if (known) {
#pragma unroll 4
    for (int i = lane * N; i < width; i += warp_size * N) {
      const auto v = Vector<T, N>::load(x + i);
      const auto w = Vector<T, N>::load(y + i);
#pragma unroll
      for (int e = 0; e < N; ++e) sum = fmaf(to_float(v.at[e]), to_float(w.at[e]), sum);
    }
  }
  sum = warp_sum(sum);
  if (lane == 0) out[slot] = known ? sum : nanf("");
}

// f.operator()<T, N>(): N elements at once where rows of both matrices allow it.
template <class F>
void with_rows(const Tensor& x, const Tensor& y, const F& f) {
  with_float_type(x.dtype(), [&]<class T>() {
    const bool whole =
        in_vectors(static_cast<const T*>(x.raw()), x.cols()) && in_vectors(static_cast<const T*>(y.raw()), y.cols());
    whole ? f.template operator()<T, vector_size<T>>() : f.template operator()<T, 1>();
  });
}

template <bool Gather>
void move(const Tensor& x, const Tensor& index, const Tensor& scale, const Tensor& y) {
  const std::int64_t rows = Gather ? x.dim(0) : y.dim(0);
  with_rows(x, y, [&]<class T, int N>() {
    const bool scaled = scale.defined();
    const auto kernel = scaled ? move_kernel<Gather, true, T, N> : move_kernel<Gather, false, T, N>;
    const dim3 block = row_block(x.cols(), N);
    launch(stream_of(x.device()), kernel, row_blocks(index.size(), block), block, 0, static_cast<const T*>(x.raw()),
           index.i32(), scaled ? scale.f32() : nullptr, index.size(), rows, static_cast<int>(x.cols()),
           static_cast<T*>(y.raw()));
  });
}

}  // namespace

void gather_rows(const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y) {
  move<true>(x, index, scale, y);
}

void scatter_rows(const Tensor& x, const Tensor& index, const Tensor& scale, Tensor y) {
  move<false>(x, index, scale, y);
}

void sum_rows(const Tensor& x, const Tensor& order, const Tensor& begin, Tensor y) {
  with_rows(x, y, [&]<class T, int N>() {
    const dim3 block = row_block(y.cols(), N);
    launch(stream_of(y.device()), sum_kernel<T, N>, row_blocks(y.dim(0), block), block, 0,
           static_cast<const T*>(x.raw()), order.i32(), begin.i32(), y.dim(0), static_cast<int>(y.cols()),
           static_cast<T*>(y.raw()));
  });
}

void dot_rows(const Tensor& a, const Tensor& row, const Tensor& b, Tensor out) {
  with_rows(a, b, [&]<class T, int N>() {
    launch(stream_of(b.device()), dot_kernel<T, N>, blocks_for(b.dim(0), threads / warp_size), threads, 0,
           static_cast<const T*>(a.raw()), row.i32(), static_cast<const T*>(b.raw()), b.dim(0), a.dim(0),
           static_cast<int>(b.cols()), out.f32());
  });
}

}  // namespace switchyard::cuda
