// cuBLAS's place in the emulation: the same products, as a kernel with a thread for each element of the result.
#include "comm/device/kernel.cuh"
#include "layers/ops/matmul_cuda.h"

namespace switchyard::cuda {
namespace {

constexpr unsigned threads = 64;

template <class In, class Out>
void product_kernel(Matmul p) {
  const auto element = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (element >= p.m * p.n) return;
  const std::int64_t row = element / p.n;
  const std::int64_t col = element % p.n;
  const auto* const a = static_cast<const In*>(p.a) + (p.a_transposed ? row : row * p.k);
  const auto* const b = static_cast<const In*>(p.b) + (p.b_transposed ? col * p.k : col);
  const std::int64_t a_step = p.a_transposed ? p.m : 1;
  const std::int64_t b_step = p.b_transposed ? 1 : p.n;
  float sum = 0;
  for (std::int64_t i = 0; i < p.k; ++i) sum = fmaf(to_float(a[i * a_step]), to_float(b[i * b_step]), sum);
  Out& c = static_cast<Out*>(p.c)[element];
  c = from_float<Out>(p.accumulate ? to_float(c) + sum : sum);
}

}  // namespace

void matmul(Device& device, const Matmul& product) {
  with_float_type(product.in, [&]<class In>() {
    with_float_type(product.out, [&]<class Out>() {
      launch(stream_of(device), product_kernel<In, Out>, blocks_for(product.m * product.n, threads), threads, 0,
             product);
    });
  });
}

}  // namespace switchyard::cuda
