// Attention of a few queries to a cache of keys and values: a block of threads takes one query of one head over all its
// keys, with the running softmax of attention.h.
#include "comm/device/kernel.cuh"
#include "layers/attention/attention_cuda.h"

#include <cmath>

namespace switchyard::cuda {
namespace {

constexpr int threads = 128;
constexpr int warps = threads / warp_size;
constexpr int keys_at_once = threads;  // a thread each, for the softmax

template <class T>
struct DecodeArguments {
  const T* q;
  const T* k;
  const T* v;
  T* out;
  std::int64_t first;  // keys that the first row sees, less one
  int heads, kv_heads, width, width_v;
  float scale;
};

template <class T>
__global__ void __launch_bounds__(threads) attention_decode_kernel(const DecodeArguments<T> args) {
  __shared__ float of_warps[2 * warps];
  __shared__ float weights[keys_at_once];
  float* const q = dynamic_shared<float>();
  float* const sums = q + args.width;

  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / warp_size;
  const int lane = thread % warp_size;
  const std::int64_t row = blockIdx.y;
  const int head = static_cast<int>(blockIdx.x);
  const int kv_head = head / (args.heads / args.kv_heads);
  const std::int64_t of_row = row * args.heads + head;
  const std::int64_t stride = std::int64_t{args.kv_heads} * args.width;
  const std::int64_t stride_v = std::int64_t{args.kv_heads} * args.width_v;
  const T* const k = args.k + std::int64_t{kv_head} * args.width;
  const T* const v = args.v + std::int64_t{kv_head} * args.width_v;
  for (int c = thread; c < args.width; c += threads) q[c] = to_float(args.q[of_row * args.width + c]) * args.scale;
  for (int c = thread; c < args.width_v; c += threads) sums[c] = 0;
  __syncthreads();

  const std::int64_t keys = args.first + row + 1;
  float highest = -INFINITY;
  float total = 0;
  for (std::int64_t first = 0; first < keys; first += keys_at_once) {
    const int count = static_cast<int>(keys - first < keys_at_once ? keys - first : keys_at_once);
    for (int j = warp; j < count; j += warps) {
      float dot = 0;
      for (int c = lane; c < args.width; c += warp_size) dot = fmaf(q[c], to_float(k[(first + j) * stride + c]), dot);
      dot = warp_sum(dot);
      if (lane == 0) weights[j] = dot;
    }
    __syncthreads();
    const float score = thread < count ? weights[thread] : -INFINITY;
    const float top_of_warp = warp_max(score);
    if (lane == 0) of_warps[warp] = top_of_warp;
    __syncthreads();
    float top = highest;
    for (int w = 0; w < warps; ++w) top = fmaxf(top, of_warps[w]);
    const float weight = thread < count ? expf(score - top) : 0.0F;
    const float factor = expf(highest - top);
    highest = top;
    weights[thread] = weight;
    total = fmaf(total, factor, block_sum<threads>(weight, of_warps + warps));
    for (int c = thread; c < args.width_v; c += threads) {
      float sum = sums[c] * factor;
      for (int j = 0; j < count; ++j) sum = fmaf(weights[j], to_float(v[(first + j) * stride_v + c]), sum);
      sums[c] = sum;
    }
    __syncthreads();
  }
  for (int c = thread; c < args.width_v; c += threads) {
    args.out[of_row * args.width_v + c] = from_float<T>(sums[c] / total);
  }
}

}  // namespace

void attention_decode(const AttentionShape& shape, const Tensor& q, const Tensor& k_cache, const Tensor& v_cache,
                      std::int64_t positions, Tensor out) {
  with_float_type(q.dtype(), [&]<class T>() {
    const DecodeArguments<T> args{static_cast<const T*>(q.raw()),
                                  static_cast<const T*>(k_cache.raw()),
                                  static_cast<const T*>(v_cache.raw()),
                                  static_cast<T*>(out.raw()),
                                  positions - q.rows(),
                                  static_cast<int>(shape.heads),
                                  static_cast<int>(shape.kv_heads),
                                  static_cast<int>(shape.head_dim),
                                  static_cast<int>(shape.value_width()),
                                  static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)))};
    const std::size_t shared_bytes = sizeof(float) * static_cast<std::size_t>(shape.head_dim + shape.value_width());
    // A grid takes 65,535 rows at most, far more than a prompt has positions in memory; a longer one goes in pieces.
    constexpr std::int64_t most = 65535;
    for (std::int64_t begin = 0; begin < q.rows(); begin += most) {
      DecodeArguments<T> piece = args;
      piece.q += begin * shape.heads * shape.head_dim;
      piece.out += begin * shape.heads * shape.value_width();
      piece.first += begin;
      const std::int64_t rows = q.rows() - begin < most ? q.rows() - begin : most;
      launch(stream_of(q.device()), attention_decode_kernel<T>,
             dim3(static_cast<unsigned>(shape.heads), static_cast<unsigned>(rows)), dim3(threads), shared_bytes, piece);
    }
  });
}

}  // namespace switchyard::cuda
