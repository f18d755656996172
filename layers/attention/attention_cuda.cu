#include "layers/attention/attention_arguments.cuh"
#include "layers/attention/attention_cuda.h"

#include <cmath>
#include <limits>
#include <type_traits>

namespace switchyard::cuda {
namespace {

int to_int(const char* name, std::int64_t value) {
  require(value <= std::numeric_limits<int>::max(), "attention: {} is {}, beyond what the CUDA kernels count to", name,
          value);
  return static_cast<int>(value);
}

template <class T>
T* pointer(const Tensor& tensor) {
  return static_cast<T*>(tensor.raw());
}

template <class T>
AttentionArguments<T> arguments_of(const AttentionShape& shape) {
  AttentionArguments<T> args{};
  args.sequences = to_int("the number of sequences", shape.sequences);
  args.positions = to_int("the number of positions", shape.positions);
  args.heads = to_int("the number of heads", shape.heads);
  args.kv_heads = to_int("the number of KV heads", shape.kv_heads);
  args.width_qk = to_int("the head width", shape.head_dim);
  args.width_v = to_int("the width of a head's values", shape.value_width());
  to_int("the width of all heads", shape.heads * std::max(shape.head_dim, shape.value_width()));
  args.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
  return args;
}

// Tensor cores take bf16, and rows that can be copied 16 bytes at a time.
bool takes_tensor_cores(const FlashArguments& args) {
  if (args.width_qk > max_flash_width || args.width_v > args.width_qk) return false;
  for (const bf16* const rows :
       {args.q, args.k, args.v, args.dout, static_cast<const bf16*>(args.out), static_cast<const bf16*>(args.dq),
        static_cast<const bf16*>(args.dk), static_cast<const bf16*>(args.dv)}) {
    if (!in_vectors(rows, args.width_qk) || !in_vectors(rows, args.width_v)) return false;
  }
  return true;
}

// mean = the sum of dout * out over a head's row; 8 lanes a row, N elements at a time.
constexpr int mean_threads = 256;
constexpr int lanes_a_row = 8;
template <class T, int N>
__global__ void __launch_bounds__(mean_threads) output_mean_kernel(const T* dout, const T* out, std::int64_t rows,
                                                                   int positions, int heads, int width, float* mean) {
  const std::int64_t thread = std::int64_t{blockIdx.x} * mean_threads + threadIdx.x;
  const std::int64_t row = thread / lanes_a_row;
  const int lane = static_cast<int>(thread % lanes_a_row);
  float sum = 0;
  if (row < rows) {
    for (int c = lane * N; c < width; c += lanes_a_row * N) {
      const auto a = Vector<T, N>::load(dout + row * width + c);
      const auto b = Vector<T, N>::load(out + row * width + c);
#pragma unroll
      for (int i = 0; i < N; ++i) sum = fmaf(to_float(a.at[i]), to_float(b.at[i]), sum);
    }
  }
#pragma unroll
  for (int offset = lanes_a_row / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(whole_warp, sum, offset);
  if (row < rows && lane == 0) {
    const std::int64_t position = row / heads;  // of all sequences
    mean[(position / positions * heads + row % heads) * positions + position % positions] = sum;
  }
}

template <class T>
void output_mean(const AttentionArguments<T>& args, float* mean, cudaStream_t stream) {
  const std::int64_t rows = std::int64_t{args.sequences} * args.positions * args.heads;
  const bool vectors = in_vectors(args.dout, args.width_v) && in_vectors(args.out, args.width_v);
  const auto kernel = vectors ? output_mean_kernel<T, vector_size<T>> : output_mean_kernel<T, 1>;
  launch(stream, kernel, dim3(blocks_for(rows, mean_threads / lanes_a_row)), dim3(mean_threads), 0, args.dout,
         static_cast<const T*>(args.out), rows, args.positions, args.heads, args.width_v, mean);
}

}  // namespace

void attention(const AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v, Tensor out,
               Tensor log_sum_exp) {
  with_float_type(q.dtype(), [&]<class T>() {
    auto args = arguments_of<T>(shape);
    args.q = pointer<T>(q);
    args.k = pointer<T>(k);
    args.v = pointer<T>(v);
    args.out = pointer<T>(out);
    args.log_sum_exp = log_sum_exp.f32();
    const cudaStream_t stream = stream_of(q.device());
    if constexpr (std::is_same_v<T, bf16>) {
      if (takes_tensor_cores(args)) return flash_forward(args, stream);
    }
    tiled_forward(args, stream);
  });
}

void attention_backward(const AttentionShape& shape, const Tensor& dout, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Tensor& out, const Tensor& log_sum_exp, Arena& scratch, Tensor dq,
                        Tensor dk, Tensor dv) {
  const ArenaScope scope(scratch);
  const Tensor mean = allocate(scratch, log_sum_exp.shape());
  with_float_type(q.dtype(), [&]<class T>() {
    auto args = arguments_of<T>(shape);
    args.q = pointer<T>(q);
    args.k = pointer<T>(k);
    args.v = pointer<T>(v);
    args.out = pointer<T>(out);
    args.log_sum_exp = log_sum_exp.f32();
    args.dout = pointer<T>(dout);
    args.mean = mean.f32();
    args.dq = pointer<T>(dq);
    args.dk = pointer<T>(dk);
    args.dv = pointer<T>(dv);
    const cudaStream_t stream = stream_of(q.device());
    output_mean(args, mean.f32(), stream);
    if constexpr (std::is_same_v<T, bf16>) {
      if (takes_tensor_cores(args)) return flash_backward(args, stream);
    }
    tiled_backward(args, stream);
  });
}

}  // namespace switchyard::cuda
