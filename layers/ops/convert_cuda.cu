#include "comm/device/kernel.cuh"
#include "layers/ops/convert_cuda.h"

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;

template <bool Add, class From, class To>
__device__ __forceinline__ void put(From x, To& y) {
  const To rounded = from_float<To>(to_float(x));
  if constexpr (Add) {
    y = from_float<To>(to_float(y) + to_float(rounded));
  } else {
    y = rounded;
  }
}

// y = x, or y += x (Add), rounded to y's type. Elements of a thread: at best 16 bytes of the smaller type.
template <bool Add, int AtOnce, class From, class To>
__global__ void __launch_bounds__(threads)
    convert_kernel(const From* __restrict__ x, To* __restrict__ y, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * threads * AtOnce;
  for (std::int64_t i = (std::int64_t{blockIdx.x} * threads + threadIdx.x) * AtOnce; i < n; i += step) {
    if (i + AtOnce <= n) {
      const auto in = Vector<From, AtOnce>::load(x + i);
      Vector<To, AtOnce> out;
      if constexpr (Add) out = Vector<To, AtOnce>::load(y + i);
#pragma unroll
      for (int e = 0; e < AtOnce; ++e) put<Add>(in.at[e], out.at[e]);
      out.store(y + i);
    } else {
      for (std::int64_t e = i; e < n; ++e) put<Add>(x[e], y[e]);
    }
  }
}

template <bool Add>
void run(const Tensor& x, const Tensor& y) {
  with_float_type(x.dtype(), [&]<class From>() {
    with_float_type(y.dtype(), [&]<class To>() {
      const auto lies_at = [](const Tensor& tensor, std::size_t bytes) {
        return reinterpret_cast<std::uintptr_t>(tensor.raw()) % bytes == 0;
      };
      constexpr int vectors = 8;
      const bool whole = lies_at(x, vectors * sizeof(From)) && lies_at(y, vectors * sizeof(To));
      const auto kernel = whole ? convert_kernel<Add, vectors, From, To> : convert_kernel<Add, 1, From, To>;
      const unsigned blocks =
          blocks_for(x.size(), threads * (whole ? vectors : 1), std::int64_t{multiprocessors(x.device())} * 16);
      launch(stream_of(x.device()), kernel, blocks, threads, 0, static_cast<const From*>(x.raw()),
             static_cast<To*>(y.raw()), x.size());
    });
  });
}

}  // namespace

void convert(const Tensor& x, Tensor y) {
  run<false>(x, y);
}

void add_converted(const Tensor& x, Tensor y) {
  run<true>(x, y);
}

}  // namespace switchyard::cuda
