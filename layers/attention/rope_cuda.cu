#include "comm/device/kernel.cuh"
#include "layers/attention/rope_cuda.h"

namespace switchyard::cuda {
namespace {

constexpr int threads = 128;

// The heads of one row, of queries and of keys.
template <class T>
struct Heads {
  T* q;
  T* k;
  int of_q, of_k;  // how many
};

// A block a row. A thread turns N pairs at a time: vectors of both halves of a head. In x it has its place in the
// heads, with the cosines and sines of that place; in y it goes over the heads.
template <class T, int N>
__global__ void __launch_bounds__(threads)
    turn_kernel(const float* __restrict__ table, unsigned positions, int half, float sign, const Heads<T> heads) {
  const std::int64_t row = blockIdx.x;
  const float* const angles = table + static_cast<std::int64_t>(blockIdx.x % positions) * 2 * half;
  T* const q = heads.q + row * heads.of_q * 2 * half;
  T* const k = heads.k + row * heads.of_k * 2 * half;
  for (int i = static_cast<int>(threadIdx.x) * N; i < half; i += static_cast<int>(blockDim.x) * N) {
    const auto cosine = Vector<float, N>::load(angles + i);
    const auto sine = Vector<float, N>::load(angles + half + i);
#pragma unroll 2
    for (int h = static_cast<int>(threadIdx.y); h < heads.of_q + heads.of_k; h += static_cast<int>(blockDim.y)) {
      T* const head = (h < heads.of_q ? q + h * 2 * half : k + (h - heads.of_q) * 2 * half) + i;
      auto first = Vector<T, N>::load(head);
      auto second = Vector<T, N>::load(head + half);
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const float a = to_float(first.at[e]);
        const float b = to_float(second.at[e]);
        const float s = sine.at[e] * sign;
        first.at[e] = from_float<T>(fmaf(-b, s, a * cosine.at[e]));
        second.at[e] = from_float<T>(fmaf(a, s, b * cosine.at[e]));
      }
      first.store(head);
      second.store(head + half);
    }
  }
}

}  // namespace

void rope(const Tensor& table, std::int64_t head_dim, bool back, const Tensor& q, const Tensor& k) {
  const std::int64_t half = head_dim / 2;
  with_float_type(q.dtype(), [&]<class T>() {
    const Heads<T> heads{.q = static_cast<T*>(q.raw()),
                         .k = static_cast<T*>(k.raw()),
                         .of_q = static_cast<int>(q.cols() / head_dim),
                         .of_k = static_cast<int>(k.cols() / head_dim)};
    const auto run = [&](auto kernel, std::int64_t at_once) {
      unsigned along = 1;
      while (along < threads && along * at_once < half) along *= 2;
      launch(stream_of(q.device()), kernel, static_cast<unsigned>(q.rows()), dim3(along, threads / along), 0,
             table.f32(), static_cast<unsigned>(table.rows()), static_cast<int>(half), back ? -1.0F : 1.0F, heads);
    };
    const bool whole = in_vectors(heads.q, half) && in_vectors(heads.k, half) &&
                       reinterpret_cast<std::uintptr_t>(table.raw()) % 32 == 0;
    whole ? run(turn_kernel<T, vector_size<T>>, vector_size<T>) : run(turn_kernel<T, 1>, 1);
  });
}

}  // namespace switchyard::cuda
