#include "comm/device/kernel.cuh"
#include "layers/ops/convert_cuda.h"

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;
constexpr int at_once = 8;  // elements of a thread: 16 bytes of the smaller type

template <class From, class To>
__global__ void __launch_bounds__(threads)
    convert_kernel(const From* __restrict__ x, To* __restrict__ y, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * threads * at_once;
  for (std::int64_t i = (std::int64_t{blockIdx.x} * threads + threadIdx.x) * at_once; i < n; i += step) {
    if (i + at_once <= n) {
      const auto in = Vector<From, at_once>::load(x + i);
      Vector<To, at_once> out;
#pragma unroll
      for (int e = 0; e < at_once; ++e) out.at[e] = from_float<To>(to_float(in.at[e]));
      out.store(y + i);
    } else {
      for (std::int64_t e = i; e < n; ++e) y[e] = from_float<To>(to_float(x[e]));
    }
  }
}

}  // namespace

void convert(const Tensor& x, Tensor y) {
  const unsigned blocks = blocks_for(x.size(), threads * at_once, std::int64_t{multiprocessors(x.device())} * 16);
  with_float_type(x.dtype(), [&]<class From>() {
    with_float_type(y.dtype(), [&]<class To>() {
      launch(stream_of(x.device()), convert_kernel<From, To>, blocks, threads, 0, static_cast<const From*>(x.raw()),
             static_cast<To*>(y.raw()), x.size());
    });
  });
}

}  // namespace switchyard::cuda
