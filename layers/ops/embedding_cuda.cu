#include "layers/ops/embedding_cuda.h"
#include "layers/ops/row_blocks.cuh"
#include "layers/ops/rows_cuda.h"
#include "layers/tensor/gradient_sum.cuh"

namespace switchyard::cuda {
namespace {

constexpr int threads = row_block_threads;

template <class T, int N>
__global__ void __launch_bounds__(threads)
    look_up_kernel(const std::int32_t* __restrict__ tokens, const float* __restrict__ table, std::int64_t count,
                   std::int64_t vocabulary, int width, T* __restrict__ y) {
  const RowThread me = row_thread<N>();
  if (me.row >= count) return;
  const std::int32_t token = tokens[me.row];
  const bool known = token >= 0 && token < vocabulary;
#pragma unroll 2
  for (int i = me.begin; i < width; i += me.step) {
    Vector<T, N> out;
    if (known) {
      const auto in = Vector<float, N>::load(table + std::int64_t{token} * width + i);
#pragma unroll
      for (int e = 0; e < N; ++e) out.at[e] = from_float<T>(in.at[e]);
    } else {
#pragma unroll
      for (int e = 0; e < N; ++e) out.at[e] = from_float<T>(nanf(""));
    }
    out.store(y + me.row * width + i);
  }
}

// One partial a token of the vocabulary that occurs: the sum over its positions, in their order.
template <class T, int N>
__global__ void __launch_bounds__(threads)
    add_kernel(const T* __restrict__ dy, const std::int32_t* __restrict__ order, const std::int32_t* __restrict__ begin,
               std::int64_t vocabulary, int width, DeviceSum dtable) {
  const RowThread me = row_thread<N>();
  if (me.row >= vocabulary) return;
  const std::int32_t first = begin[me.row];
  const std::int32_t end = begin[me.row + 1];
  if (first == end) return;
  for (int i = me.begin; i < width; i += me.step) {
    float sum[N] = {};
#pragma unroll 8
    for (std::int32_t k = first; k < end; ++k) {
      const auto v = Vector<T, N>::load(dy + std::int64_t{order[k]} * width + i);
#pragma unroll
      for (int e = 0; e < N; ++e) sum[e] += to_float(v.at[e]);
    }
#pragma unroll
    for (int e = 0; e < N; ++e) dtable.add(me.row * width + i + e, sum[e]);
  }
}

bool aligned(const void* memory) {
  return reinterpret_cast<std::uintptr_t>(memory) % 32 == 0;
}

}  // namespace

void embedding(const Tensor& tokens, const Tensor& table, Tensor y) {
  const std::int64_t width = y.dim(1);
  with_float_type(y.dtype(), [&]<class T>() {
    const auto run = [&](auto kernel, int at_once) {
      const dim3 block = row_block(width, at_once);
      launch(stream_of(y.device()), kernel, row_blocks(y.dim(0), block), block, 0, tokens.i32(), table.f32(), y.dim(0),
             table.dim(0), static_cast<int>(width), static_cast<T*>(y.raw()));
    };
    const bool whole = width % vector_size<T> == 0 && aligned(table.raw()) && aligned(y.raw());
    whole ? run(look_up_kernel<T, vector_size<T>>, vector_size<T>) : run(look_up_kernel<T, 1>, 1);
  });
}

void embedding_backward(const Tensor& dy, const Tensor& tokens, const GradientSum& dtable) {
  Device& device = dy.device();
  const std::int64_t width = dy.dim(1);
  const std::int64_t vocabulary = dtable.size / width;
  auto* const order =
      static_cast<std::int32_t*>(device.workspace(Bytes((tokens.size() + 2 * vocabulary + 1) * size_of(DType::I32))));
  std::int32_t* const begin = order + tokens.size();
  make_row_lists(device, tokens.i32(), tokens.size(), vocabulary, order, begin, begin + vocabulary + 1);
  with_float_type(dy.dtype(), [&]<class T>() {
    const auto run = [&](auto kernel, int at_once) {
      const dim3 block = row_block(width, at_once);
      launch(stream_of(device), kernel, row_blocks(vocabulary, block), block, 0, static_cast<const T*>(dy.raw()), order,
             begin, vocabulary, static_cast<int>(width), device_sum(dtable));
    };
    const bool whole = in_vectors(static_cast<const T*>(dy.raw()), width);
    whole ? run(add_kernel<T, vector_size<T>>, vector_size<T>) : run(add_kernel<T, 1>, 1);
  });
}

}  // namespace switchyard::cuda
