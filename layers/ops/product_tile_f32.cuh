// A square tile of a product of fp32 matrices: 8 x 8 sums a thread, steps of 16 positions through two stages of shared
// memory. Each sum is one chain of fused multiply-adds in ascending positions from its start, as on the CPU: the same
// bits.
//
// In shared memory an operand lies by positions, [16, Side], its quads of lines permuted: line l of position p is at
// l xor 8 (p / 4). What lies by lines is turned while it goes there: a thread has four positions of one line, a warp 8
// lines and all 4 values of p / 4, which the permutation lays into 32 different banks. Reading, the lanes of a warp ask
// for 8 quads of A and 4 of B, each within 32 lines that follow each other, which are different banks in any order.
#pragma once

#include "layers/ops/product_operands.cuh"

#include <cstdint>

namespace switchyard::cuda {

template <int Side>
struct F32Tile {
  using Element = float;
  static constexpr int tile_rows = Side;
  static constexpr int tile_columns = Side;
  static constexpr int threads = Side * Side / 64;
  static constexpr int blocks = Side == 128 ? 1 : 4;  // on a multiprocessor
  static constexpr int blocks_by_positions = blocks;
  static constexpr int step = 16;
  static constexpr int stages = 2;
  static constexpr int operand_size = Side * step;
  static constexpr std::size_t shared_bytes = sizeof(float) * 2 * operand_size * stages;

  // A warp has [64, 32] of the sums, a thread 2 x 2 squares of 4 x 4.
  float c[8][8];
  static constexpr int rows = 8;
  static constexpr int pieces = 2;
  static constexpr int pieces_at_once = pieces;
  static constexpr int width = 4;
  static constexpr int warps_across = Side / 32;
  __device__ static __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / warp_size; }
  __device__ static __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % warp_size; }
  __device__ static __forceinline__ int row(int i) {
    return warp() / warps_across * 64 + i / 4 * 32 + lane() / 4 * 4 + i % 4;
  }
  __device__ static __forceinline__ int column(int j) { return warp() % warps_across * 32 + j * 16 + lane() % 4 * 4; }
  __device__ __forceinline__ float& at(int i, int j, int e) { return c[i][j * 4 + e]; }

  // Adds the product to the sums. All threads of the block come here together; the shared memory is free again after
  // the next barrier.
  template <bool ALines, bool BLines, bool Aligned, class Positions>
  __device__ __forceinline__ void multiply(float* shared, const Operand<float>& a, const Operand<float>& b,
                                           Positions positions) {
    const int steps = (positions.count + step - 1) / step;
    Vector<float> next_a[quads], next_b[quads];
    const auto fetch = [&](int s) {
      int rows_of_mine[quads];
      if constexpr (!ALines || !BLines) {
#pragma unroll
        for (int i = 0; i < quads; ++i) rows_of_mine[i] = positions.row(s * step + position_of(i));
      }
      fetch_operand<ALines, Aligned>(next_a, a, s * step, positions.count, rows_of_mine);
      fetch_operand<BLines, Aligned>(next_b, b, s * step, positions.count, rows_of_mine);
    };
    const auto put = [&](int s) {
      float* const to = shared + s % stages * (2 * operand_size);
      put_operand<ALines>(to, next_a);
      put_operand<BLines>(to + operand_size, next_b);
    };
    if (steps == 0) return;
    fetch(0);
    put(0);
    __syncthreads();
#pragma unroll 1
    for (int s = 0; s < steps; ++s) {
      if (s + 1 < steps) fetch(s + 1);
      multiply_step(shared + s % stages * (2 * operand_size));
      if (s + 1 < steps) {
        put(s + 1);
        __syncthreads();  // also: all are done with the stage that the step after the next one takes
      }
    }
  }

 private:
  // 16 bytes of an operand at a time, in either order.
  static constexpr int quads = Side * step / 4 / threads;

  __device__ static __forceinline__ int line_of(int i) {
    return static_cast<int>(threadIdx.x) / 4 + i * (threads / 4);
  }
  __device__ static __forceinline__ int position_of(int i) {
    return static_cast<int>(threadIdx.x) / (Side / 4) + i * (threads / (Side / 4));
  }

  template <bool Lines, bool Aligned>
  __device__ static __forceinline__ void fetch_operand(Vector<float> (&to)[quads], const Operand<float>& from,
                                                       int begin, int count, const int* rows_of_mine) {
#pragma unroll
    for (int i = 0; i < quads; ++i) {
      if constexpr (Lines) {
        const int p = begin + static_cast<int>(threadIdx.x) % 4 * 4;
        const int line = line_of(i);
        to[i] = load_elements<Aligned>(from.first + from.stride * line + p, line < from.lines ? count - p : 0);
      } else {
        const int line = static_cast<int>(threadIdx.x) % (Side / 4) * 4;
        const int r = rows_of_mine[i];
        to[i] = load_elements<Aligned>(from.first + from.stride * r + line, r >= 0 ? from.lines - line : 0);
      }
    }
  }

  template <bool Lines>
  __device__ static __forceinline__ void put_operand(float* tile, const Vector<float> (&from)[quads]) {
#pragma unroll
    for (int i = 0; i < quads; ++i) {
      if constexpr (Lines) {
        const int quarter = static_cast<int>(threadIdx.x) % 4;
        float* const to = tile + quarter * 4 * Side + (line_of(i) ^ quarter * 8);
#pragma unroll
        for (int e = 0; e < 4; ++e) to[e * Side] = from[i].at[e];
      } else {
        const int line = static_cast<int>(threadIdx.x) % (Side / 4) * 4;
        const int p = position_of(i);
        from[i].store(tile + p * Side + (line ^ p / 4 * 8));
      }
    }
  }

  __device__ __forceinline__ void multiply_step(const float* from) {
    const int a_line = row(0), b_line = column(0);
#pragma unroll
    for (int p = 0; p < step; ++p) {
      const int permuted = p / 4 * 8;
      const float* const a_row = from + p * Side;
      const float* const b_row = a_row + operand_size;
      const Vector<float> a[2] = {Vector<float>::load(a_row + (a_line ^ permuted)),
                                  Vector<float>::load(a_row + 32 + (a_line ^ permuted))};
      const Vector<float> b[2] = {Vector<float>::load(b_row + (b_line ^ permuted)),
                                  Vector<float>::load(b_row + ((b_line + 16) ^ permuted))};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) c[i][j] = fmaf(a[i / 4].at[i % 4], b[j / 4].at[j % 4], c[i][j]);
      }
    }
  }
};

}  // namespace switchyard::cuda
