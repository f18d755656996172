#include "comm/device/kernel.cuh"
#include "layers/attention/rope_cuda.h"

namespace switchyard::cuda {
namespace {

constexpr int threads = 128;

// A block a row, a thread N pairs at a time: vectors of both halves of a head, and the cosines and sines of theirs.
template <class T, int N>
__global__ void __launch_bounds__(threads) turn_kernel(const float* __restrict__ table, unsigned positions, int half,
                                                       int width, float sign, T* __restrict__ x) {
  const float* const angles = table + static_cast<std::int64_t>(blockIdx.x % positions) * 2 * half;
  T* const row = x + std::int64_t{blockIdx.x} * width;
  const unsigned in_head = static_cast<unsigned>(half / N);
  const unsigned work = static_cast<unsigned>(width / 2 / N);
  for (unsigned w = threadIdx.x; w < work; w += threads) {
    const int i = static_cast<int>(w % in_head) * N;
    T* const head = row + static_cast<int>(w / in_head) * 2 * half;
    auto first = Vector<T, N>::load(head + i);
    auto second = Vector<T, N>::load(head + half + i);
    const auto cosine = Vector<float, N>::load(angles + i);
    const auto sine = Vector<float, N>::load(angles + half + i);
#pragma unroll
    for (int e = 0; e < N; ++e) {
      const float a = to_float(first.at[e]);
      const float b = to_float(second.at[e]);
      const float s = sine.at[e] * sign;
      first.at[e] = from_float<T>(fmaf(-b, s, a * cosine.at[e]));
      second.at[e] = from_float<T>(fmaf(a, s, b * cosine.at[e]));
    }
    first.store(head + i);
    second.store(head + half + i);
  }
}

}  // namespace

void rope(const Tensor& table, std::int64_t head_dim, bool back, const Tensor& x) {
  const std::int64_t half = head_dim / 2;
  with_float_type(x.dtype(), [&]<class T>() {
    const auto run = [&](auto kernel) {
      launch(stream_of(x.device()), kernel, static_cast<unsigned>(x.rows()), threads, 0, table.f32(),
             static_cast<unsigned>(table.rows()), static_cast<int>(half), static_cast<int>(x.cols()),
             back ? -1.0F : 1.0F, static_cast<T*>(x.raw()));
    };
    const bool whole =
        in_vectors(static_cast<const T*>(x.raw()), half) && reinterpret_cast<std::uintptr_t>(table.raw()) % 32 == 0;
    whole ? run(turn_kernel<T, vector_size<T>>) : run(turn_kernel<T, 1>);
  });
}

}  // namespace switchyard::cuda
