// What the attention kernels on tensor cores share: tiles in shared memory, and products of tiles by a warp.
//
// A tile's rows lie 16 bytes further apart than they are long, an odd number of 16-byte units: the eight rows that one
// ldmatrix reads then lie in different banks. A head narrower than its tile is filled up with zeros, and so are the
// rows behind a sequence's end.
#pragma once

#include "layers/attention/attention_arguments.cuh"
#include "layers/ops/mma.cuh"

#include <cstdint>

namespace switchyard::cuda {

// f.operator()<WidthQK, WidthV>() for the smallest tiles that the heads fit into. 192 and 128: multi-head latent
// attention (DeepSeek-V2).
template <class F>
void with_flash_widths(const FlashArguments& args, const F& f) {
  if (args.width_qk <= 64) return f.template operator()<64, 64>();
  if (args.width_qk <= 96) return f.template operator()<96, 96>();
  if (args.width_qk <= 128) return f.template operator()<128, 128>();
  if (args.width_qk <= 192 && args.width_v <= 128) return f.template operator()<192, 128>();
  return f.template operator()<256, 256>();
}

inline constexpr float log2_e = 1.44269504088896341F;

template <int Width>
inline constexpr int pitch = Width + 8;

__device__ __forceinline__ int lane_of_thread() {
  return static_cast<int>(threadIdx.x) % warp_size;
}
__device__ __forceinline__ int warp_of_thread() {
  return static_cast<int>(threadIdx.x) / warp_size;
}

// Starts the copy of Rows rows, which lie `stride` apart, into a tile.
template <int Rows, int Width, int Threads>
__device__ __forceinline__ void load_tile(bf16* tile, const bf16* from, int stride, int valid_rows, int valid_width) {
  constexpr int chunks = Width / 8;
  constexpr int rows_at_once = Threads / chunks;
  const int begin = static_cast<int>(threadIdx.x) / chunks;
  const int column = static_cast<int>(threadIdx.x) % chunks * 8;
  const bf16* at = from + begin * stride + column;
  const int end = Threads % chunks != 0 && begin == rows_at_once ? 0 : Rows;
#pragma unroll 1
  for (int row = begin; row < end; row += rows_at_once, at += rows_at_once * stride) {
    const bool valid = row < valid_rows && column < valid_width;
    copy_async<16>(tile + row * pitch<Width> + column, valid ? at : from, valid);
  }
  __syncwarp();  // lanes went round unlike often, and matrices are loaded and multiplied by whole warps
}

// Rows of this warp, from its tile to memory in pieces of 16 bytes.
template <int Rows, int Width, int Columns>
__device__ __forceinline__ void store_rows(const bf16* tile, bf16* to, int stride, int valid_rows, int valid_columns) {
  constexpr int chunks = Columns / 8;
#pragma unroll 4
  for (int i = lane_of_thread(); i < Rows * chunks; i += warp_size) {
    const int row = i / chunks;
    const int column = i % chunks * 8;
    if (row < valid_rows && column < valid_columns) {
      const uint4 piece = *reinterpret_cast<const uint4*>(tile + row * pitch<Width> + column);
      *reinterpret_cast<uint4*>(to + std::int64_t{row} * stride + column) = piece;
    }
  }
}

// A [16, 16]: rows from `row`, k from `k` of a tile.
template <int Width>
__device__ __forceinline__ void load_a(FragmentA& a, const bf16* tile, int row, int k) {
  const int lane = lane_of_thread();
  load_matrices(a.r, tile + (row + lane % 16) * pitch<Width> + k + lane / 16 * 8);
}
// Two B [16, 8] side by side, whose columns are rows of the tile: columns from `row`, k from `k`.
template <int Width>
__device__ __forceinline__ void load_b(FragmentB (&b)[2], const bf16* tile, int row, int k) {
  const int lane = lane_of_thread();
  std::uint32_t r[4];
  load_matrices(r, tile + (row + lane / 16 * 8 + lane % 8) * pitch<Width> + k + lane / 8 % 2 * 8);
  b[0] = {{r[0], r[1]}};
  b[1] = {{r[2], r[3]}};
}
// Two B [16, 8] side by side, whose k are rows of the tile: k from `row`, columns from `column`.
template <int Width>
__device__ __forceinline__ void load_b_of_rows(FragmentB (&b)[2], const bf16* tile, int row, int column) {
  const int lane = lane_of_thread();
  std::uint32_t r[4];
  load_matrices_transposed(r, tile + (row + lane % 16) * pitch<Width> + column + lane / 16 * 8);
  b[0] = {{r[0], r[1]}};
  b[1] = {{r[2], r[3]}};
}

template <int M, int N>
__device__ __forceinline__ void set_zero(FragmentC (&c)[M][N]) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) c[m][n] = {{0, 0, 0, 0}};
  }
}

// c = rows of one tile times rows of another, over their width: M * 16 rows from `row` of a, the first N * 8 of b.
template <int Width, int M, int N>
__device__ __forceinline__ void multiply_rows(FragmentC (&c)[M][N], const bf16* a_tile, int row, const bf16* b_tile) {
  set_zero(c);
#pragma unroll
  for (int k = 0; k < Width; k += 16) {
    FragmentA a[M];
#pragma unroll
    for (int m = 0; m < M; ++m) load_a<Width>(a[m], a_tile, row + m * 16, k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      FragmentB b[2];
      load_b<Width>(b, b_tile, n * 8, k);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma(c[m][n], a[m], b[0]);
        mma(c[m][n + 1], a[m], b[1]);
      }
    }
  }
}

// c += a B, where B's k are the first K * 8 rows of a tile and its columns begin at `column`. a: sums of a product
// before, rounded to bf16.
template <int Width, int M, int K, int N>
__device__ __forceinline__ void add_product(FragmentC (&c)[M][N], const FragmentC (&a)[M][K], const bf16* tile,
                                            int column) {
#pragma unroll
  for (int k = 0; k < K; k += 2) {
    FragmentA rounded[M];
#pragma unroll
    for (int m = 0; m < M; ++m) {
      const FragmentC& left = a[m][k];
      const FragmentC& right = a[m][k + 1];
      rounded[m] = {{pack_bf16(left.c[0], left.c[1]), pack_bf16(left.c[2], left.c[3]),
                     pack_bf16(right.c[0], right.c[1]), pack_bf16(right.c[2], right.c[3])}};
    }
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      FragmentB b[2];
      load_b_of_rows<Width>(b, tile, k * 8, column + n * 8);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma(c[m][n], rounded[m], b[0]);
        mma(c[m][n + 1], rounded[m], b[1]);
      }
    }
  }
}

// Writes c * factor of one half (rows g or g + 8) of 16 rows to a tile: the row's columns from `column` on.
template <int Width, int N>
__device__ __forceinline__ void round_to_tile(const FragmentC (&c)[N], int half, float factor, bf16* tile, int row,
                                              int column) {
  const int lane = lane_of_thread();
  bf16* const to = tile + (row + half * 8 + lane / 4) * pitch<Width> + column + lane % 4 * 2;
#pragma unroll
  for (int n = 0; n < N; ++n) {
    *reinterpret_cast<std::uint32_t*>(to + n * 8) = pack_bf16(c[n].c[2 * half] * factor, c[n].c[2 * half + 1] * factor);
  }
}

}  // namespace switchyard::cuda
