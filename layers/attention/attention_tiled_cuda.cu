// Attention in fp32 for heads of any width: tiles of 64 queries by 64 keys, worked on by 16 x 16 threads with 4 x 4
// elements each. It is what fp32 activations take, whose products no tensor core makes exactly enough, and what heads
// take that fit no tile of flash_tile.cuh.
//
// Results are made 64 columns at a time, each part by blocks of its own, so that a head's width bounds nothing; the
// scores are made anew for each part.
#include "layers/attention/attention_arguments.cuh"

#include <cmath>

namespace switchyard::cuda {
namespace {

constexpr int side = 16;
constexpr int threads = side * side;
constexpr int tile = 4 * side;
constexpr int depth = tile / 2;
constexpr int pitch = tile + 1;

__host__ __device__ constexpr int parts_of(int width) {
  return (width + tile - 1) / tile;
}

// This thread's elements of a tile: rows row_of(0..3), columns column_of(0..3).
struct Elements {
  float at[4][4];
};
__device__ __forceinline__ int row_of(int i) {
  return static_cast<int>(threadIdx.x) / side + side * i;
}
__device__ __forceinline__ int column_of(int j) {
  return static_cast<int>(threadIdx.x) % side + side * j;
}

// Rows of one head; those from `valid` on count as zeros.
template <class T>
struct Rows {
  const T* begin;
  int stride, valid;
};

// c[i][j] = row i of a times row j of b. memory: a tile's.
template <class T>
__device__ void multiply_rows(const Rows<T>& a, const Rows<T>& b, int width, float* memory, Elements& c) {
  c = {};
  float* const a_chunk = memory;
  float* const b_chunk = memory + depth * pitch;
  for (int begin = 0; begin < width; begin += depth) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < tile * depth; i += threads) {
      const int row = i / depth;
      const int k = i % depth;
      const bool inside = begin + k < width;
      const std::int64_t at = begin + k;
      a_chunk[k * pitch + row] = inside && row < a.valid ? to_float(a.begin[std::int64_t{row} * a.stride + at]) : 0.0F;
      b_chunk[k * pitch + row] = inside && row < b.valid ? to_float(b.begin[std::int64_t{row} * b.stride + at]) : 0.0F;
    }
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < depth; ++k) {
      float left[4], right[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) left[i] = a_chunk[k * pitch + row_of(i)];
#pragma unroll
      for (int j = 0; j < 4; ++j) right[j] = b_chunk[k * pitch + column_of(j)];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) c.at[i][j] = fmaf(left[i], right[j], c.at[i][j]);
      }
    }
  }
}

// c += a B: a is the whole tile, B's rows are those of b, of which `columns` columns count. a_tile, memory: a tile's.
template <class T>
__device__ void add_product(const Elements& a, const Rows<T>& b, int columns, float* a_tile, float* memory,
                            Elements& c) {
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) a_tile[row_of(i) * pitch + column_of(j)] = a.at[i][j];
  }
  for (int i = static_cast<int>(threadIdx.x); i < tile * tile; i += threads) {
    const int row = i / tile;
    const int column = i % tile;
    memory[row * pitch + column] =
        row < b.valid && column < columns ? to_float(b.begin[std::int64_t{row} * b.stride + column]) : 0.0F;
  }
  __syncthreads();
#pragma unroll 4
  for (int k = 0; k < tile; ++k) {
    float left[4], right[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) left[i] = a_tile[row_of(i) * pitch + k];
#pragma unroll
    for (int j = 0; j < 4; ++j) right[j] = memory[k * pitch + column_of(j)];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) c.at[i][j] = fmaf(left[i], right[j], c.at[i][j]);
    }
  }
}

// to[i][j] = c[i][j] * factor, `rows` rows and `columns` columns of it.
template <class T>
__device__ void store(const Elements& c, float factor, T* to, int stride, int rows, int columns) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (row_of(i) < rows && column_of(j) < columns) {
        to[std::int64_t{row_of(i)} * stride + column_of(j)] = from_float<T>(c.at[i][j] * factor);
      }
    }
  }
}

// Where the heads of one sequence lie.
template <class T>
struct Places {
  const AttentionArguments<T>& args;
  int sequence;

  __device__ std::int64_t row(int position) const { return std::int64_t{sequence} * args.positions + position; }
  __device__ std::int64_t of_queries(int head, int position, int width) const {
    return (row(position) * args.heads + head) * width;
  }
  __device__ std::int64_t of_keys(int kv_head, int position, int width) const {
    return (row(position) * args.kv_heads + kv_head) * width;
  }
  __device__ std::int64_t of_sums(int head, int position) const {
    return (std::int64_t{sequence} * args.heads + head) * args.positions + position;
  }
  __device__ int left(int position) const { return args.positions - position; }
  __device__ Rows<T> q(int head, int position) const {
    return {args.q + of_queries(head, position, args.width_qk), args.heads * args.width_qk, left(position)};
  }
  __device__ Rows<T> dout(int head, int position) const {
    return {args.dout + of_queries(head, position, args.width_v), args.heads * args.width_v, left(position)};
  }
  __device__ Rows<T> k(int kv_head, int position) const {
    return {args.k + of_keys(kv_head, position, args.width_qk), args.kv_heads * args.width_qk, left(position)};
  }
  __device__ Rows<T> v(int kv_head, int position) const {
    return {args.v + of_keys(kv_head, position, args.width_v), args.kv_heads * args.width_v, left(position)};
  }
};
template <class T>
__device__ Rows<T> from_column(Rows<T> rows, int column) {
  return {rows.begin + column, rows.stride, rows.valid};
}

// The largest, or the sum, over the 16 threads that share rows.
__device__ __forceinline__ float side_max(float value) {
#pragma unroll
  for (int offset = side / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(whole_warp, value, offset));
  }
  return value;
}
__device__ __forceinline__ float side_sum(float value) {
#pragma unroll
  for (int offset = side / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(whole_warp, value, offset);
  return value;
}

template <class T>
__global__ void __launch_bounds__(threads) tiled_forward_kernel(const AttentionArguments<T> args) {
  __shared__ float weights[tile * pitch];
  __shared__ float memory[tile * pitch];
  const int parts = parts_of(args.width_v);
  const int head = static_cast<int>(blockIdx.y) / parts;
  const int part = static_cast<int>(blockIdx.y) % parts;
  const int kv_head = head / (args.heads / args.kv_heads);
  const Places<T> places{args, static_cast<int>(blockIdx.z)};
  const int query = static_cast<int>(gridDim.x - 1 - blockIdx.x) * tile;
  const int column = part * tile;
  const int columns = args.width_v - column;

  Elements sums{};
  float highest[4], total[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    highest[i] = -INFINITY;
    total[i] = 0;
  }
  for (int key = 0; key < lesser(query + tile, args.positions); key += tile) {
    Elements s;
    multiply_rows(places.q(head, query), places.k(kv_head, key), args.width_qk, memory, s);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float top = highest[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s.at[i][j] = key + column_of(j) <= query + row_of(i) ? s.at[i][j] * args.scale : -INFINITY;
        top = fmaxf(top, s.at[i][j]);
      }
      top = side_max(top);
      const float factor = expf(highest[i] - top);
      highest[i] = top;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s.at[i][j] = expf(s.at[i][j] - top);
        sum += s.at[i][j];
        sums.at[i][j] *= factor;
      }
      total[i] = fmaf(total[i], factor, side_sum(sum));
    }
    add_product(s, from_column(places.v(kv_head, key), column), columns, weights, memory, sums);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sums.at[i][j] /= total[i];
    if (part == 0 && column_of(0) == 0 && row_of(i) < places.left(query)) {
      args.log_sum_exp[places.of_sums(head, query + row_of(i))] = highest[i] + logf(total[i]);
    }
  }
  store(sums, 1.0F, args.out + places.of_queries(head, query, args.width_v) + column, args.heads * args.width_v,
        places.left(query), columns);
}

// P of a tile, from its scores: query, key: the element's.
__device__ __forceinline__ float weight_of(float score, float scale, float log_sum_exp, int query, int key) {
  return key <= query ? expf(fmaf(score, scale, -log_sum_exp)) : 0.0F;
}

template <class T>
__global__ void __launch_bounds__(threads) tiled_keys_kernel(const AttentionArguments<T> args) {
  __shared__ float slopes[tile * pitch];
  __shared__ float memory[tile * pitch];
  const int parts = parts_of(args.width_v) + parts_of(args.width_qk);
  const int kv_head = static_cast<int>(blockIdx.y) / parts;
  const int part = static_cast<int>(blockIdx.y) % parts;
  const bool of_values = part < parts_of(args.width_v);
  const int column = (of_values ? part : part - parts_of(args.width_v)) * tile;
  const int columns = (of_values ? args.width_v : args.width_qk) - column;
  const int group = args.heads / args.kv_heads;
  const Places<T> places{args, static_cast<int>(blockIdx.z)};
  const int key = static_cast<int>(blockIdx.x) * tile;

  Elements sums{};
  for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int query = key; query < args.positions; query += tile) {
      Elements p;  // transposed: a row is a key
      multiply_rows(places.k(kv_head, key), places.q(head, query), args.width_qk, memory, p);
      Elements dp{};
      if (!of_values) multiply_rows(places.v(kv_head, key), places.dout(head, query), args.width_v, memory, dp);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int position = query + column_of(j);
        const bool valid = position < args.positions;
        const std::int64_t at = places.of_sums(head, valid ? position : query);
        const float log_sum_exp = args.log_sum_exp[at];
        const float mean = args.mean[at];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float weight = valid ? weight_of(p.at[i][j], args.scale, log_sum_exp, position, key + row_of(i)) : 0.0F;
          p.at[i][j] = of_values ? weight : weight * (dp.at[i][j] - mean);
        }
      }
      const Rows<T> right = of_values ? places.dout(head, query) : places.q(head, query);
      add_product(p, from_column(right, column), columns, slopes, memory, sums);
    }
  }
  if (of_values) {
    store(sums, 1.0F, args.dv + places.of_keys(kv_head, key, args.width_v) + column, args.kv_heads * args.width_v,
          places.left(key), columns);
  } else {
    store(sums, args.scale, args.dk + places.of_keys(kv_head, key, args.width_qk) + column,
          args.kv_heads * args.width_qk, places.left(key), columns);
  }
}

template <class T>
__global__ void __launch_bounds__(threads) tiled_queries_kernel(const AttentionArguments<T> args) {
  __shared__ float slopes[tile * pitch];
  __shared__ float memory[tile * pitch];
  const int parts = parts_of(args.width_qk);
  const int head = static_cast<int>(blockIdx.y) / parts;
  const int column = static_cast<int>(blockIdx.y) % parts * tile;
  const int columns = args.width_qk - column;
  const int kv_head = head / (args.heads / args.kv_heads);
  const Places<T> places{args, static_cast<int>(blockIdx.z)};
  const int query = static_cast<int>(gridDim.x - 1 - blockIdx.x) * tile;

  float log_sum_exp[4], mean[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t at = places.of_sums(head, query + (row_of(i) < places.left(query) ? row_of(i) : 0));
    log_sum_exp[i] = args.log_sum_exp[at];
    mean[i] = args.mean[at];
  }
  Elements sums{};
  for (int key = 0; key < lesser(query + tile, args.positions); key += tile) {
    Elements p, dp;
    multiply_rows(places.q(head, query), places.k(kv_head, key), args.width_qk, memory, p);
    multiply_rows(places.dout(head, query), places.v(kv_head, key), args.width_v, memory, dp);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        p.at[i][j] = weight_of(p.at[i][j], args.scale, log_sum_exp[i], query + row_of(i), key + column_of(j)) *
                     (dp.at[i][j] - mean[i]);
      }
    }
    add_product(p, from_column(places.k(kv_head, key), column), columns, slopes, memory, sums);
  }
  store(sums, args.scale, args.dq + places.of_queries(head, query, args.width_qk) + column, args.heads * args.width_qk,
        places.left(query), columns);
}

template <class T>
dim3 grid_of(const AttentionArguments<T>& args, int heads) {
  return dim3(blocks_for(args.positions, tile), static_cast<unsigned>(heads), static_cast<unsigned>(args.sequences));
}

}  // namespace

template <class T>
void tiled_forward(const AttentionArguments<T>& args, cudaStream_t stream) {
  launch(stream, tiled_forward_kernel<T>, grid_of(args, args.heads * parts_of(args.width_v)), dim3(threads), 0, args);
}

template <class T>
void tiled_backward(const AttentionArguments<T>& args, cudaStream_t stream) {
  const int key_parts = parts_of(args.width_v) + parts_of(args.width_qk);
  launch(stream, tiled_keys_kernel<T>, grid_of(args, args.kv_heads * key_parts), dim3(threads), 0, args);
  launch(stream, tiled_queries_kernel<T>, grid_of(args, args.heads * parts_of(args.width_qk)), dim3(threads), 0, args);
}

template void tiled_forward(const AttentionArguments<float>&, cudaStream_t);
template void tiled_forward(const AttentionArguments<bf16>&, cudaStream_t);
template void tiled_backward(const AttentionArguments<float>&, cudaStream_t);
template void tiled_backward(const AttentionArguments<bf16>&, cudaStream_t);

}  // namespace switchyard::cuda
