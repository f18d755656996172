// A tile of a product of bf16 matrices on tensor cores: [M, N] of fp32 sums in the registers of 4 or 8 warps, steps of
// 32 positions through four stages of shared memory. Each sum is one chain of m16n8k16 from its start, in ascending
// positions: which of them go into one instruction depends on nothing but the number of positions.
//
// In shared memory an operand keeps the order in which it lies: by lines, 64 bytes each, or by positions, 2 bytes a
// line each. The 16-byte units of a row are permuted (exclusive or) so that the eight rows that ldmatrix reads at a
// time lie in eight different groups of four banks, and so that eight threads that write side by side do as well:
//   by lines      two lines share 128 bytes; unit u of line l is at 4 (l mod 2) + (u xor (l / 2 mod 4)). Of eight lines
//                 that follow each other, l / 2 mod 4 takes each of 4 values, l mod 2 both.
//   by positions  unit u of position p is at u xor (p mod 8), and p mod 8 takes 8 values.
#pragma once

#include "layers/ops/product_operands.cuh"

#include <cstdint>

namespace switchyard::cuda {

// One operand's tile: what differs between the two orders.
template <int Lines, bool ByLines>
struct Bf16Operand;

template <int Lines>
struct Bf16Operand<Lines, true> {
  static constexpr int step = 32;

  __device__ static __forceinline__ unsigned place(unsigned line, unsigned unit) {
    return line / 2 * 64 + (line % 2 * 4 + (unit ^ (line / 2 % 4))) * 8;
  }
  // Starts the copy of positions [begin, begin + 32), of which there are `count` in all.
  template <bool Aligned, int Threads>
  __device__ static __forceinline__ void copy(bf16* tile, const Operand<bf16>& from, int begin, int count, const int*) {
    const int unit = static_cast<int>(threadIdx.x) % 4;
    const int first = static_cast<int>(threadIdx.x) / 4;
    const int p = begin + unit * 8;
    bf16* const to = tile + place(static_cast<unsigned>(first), static_cast<unsigned>(unit));
    const bf16* const at = from.first + from.stride * first + p;
#pragma unroll
    for (int i = 0; i < Lines * 4 / Threads; ++i) {
      constexpr int at_once = Threads / 4;  // a multiple of 8: the permutation is the same in all
      copy_elements<Aligned>(to + i * at_once * step, at + from.stride * (i * at_once),
                             first + i * at_once < from.lines ? count - p : 0);
    }
  }

  // This lane's part of the addresses, for lines from `line` on (a multiple of 16).
  unsigned base_a, base_b;
  __device__ explicit Bf16Operand(unsigned line) {
    const unsigned lane = threadIdx.x % warp_size;
    base_a = place(line + lane % 16, lane / 16);
    base_b = place(line + lane / 16 * 8 + lane % 8, lane / 8 % 2);
  }
  // A [16, 16]: lines 16 m on, positions 16 k on.
  __device__ __forceinline__ void load_a(FragmentA& a, const bf16* tile, unsigned m, unsigned k) const {
    load_matrices(a.r, tile + m * (16 * step) + (base_a ^ k * 16));
  }
  // Two B [16, 8] side by side: lines 16 n on.
  __device__ __forceinline__ void load_b(FragmentB* b, const bf16* tile, unsigned n, unsigned k) const {
    std::uint32_t r[4];
    load_matrices(r, tile + n * (16 * step) + (base_b ^ k * 16));
    b[0] = {{r[0], r[1]}};
    b[1] = {{r[2], r[3]}};
  }
};

template <int Lines>
struct Bf16Operand<Lines, false> {
  static constexpr int step = 32;

  __device__ static __forceinline__ unsigned place(unsigned p, unsigned unit) {
    return p * Lines + (unit ^ (p % 8)) * 8;
  }
  template <bool Aligned, int Threads>
  __device__ static __forceinline__ void copy(bf16* tile, const Operand<bf16>& from, int, int, const int* rows) {
    constexpr int units = Lines / 8;
    const int unit = static_cast<int>(threadIdx.x) % units;
    const int first = static_cast<int>(threadIdx.x) / units;
#pragma unroll
    for (int i = 0; i < step * units / Threads; ++i) {
      const int p = first + i * (Threads / units);
      copy_elements<Aligned>(tile + place(static_cast<unsigned>(p), static_cast<unsigned>(unit)),
                             from.first + from.stride * rows[i] + unit * 8, rows[i] >= 0 ? from.lines - unit * 8 : 0);
    }
  }

  // Units 2 m on from a base whose own lowest bit is the lane's, and whose unit is a multiple of 4 but for that: the
  // sum is an exclusive or.
  unsigned base_a, base_b;
  __device__ explicit Bf16Operand(unsigned line) {
    const unsigned lane = threadIdx.x % warp_size;
    base_a = place(lane / 16 * 8 + lane % 8, line / 8 + lane / 8 % 2);
    base_b = place(lane % 16, line / 8 + lane / 16);
  }
  __device__ __forceinline__ void load_a(FragmentA& a, const bf16* tile, unsigned m, unsigned k) const {
    load_matrices_transposed(a.r, tile + k * (16 * Lines) + (base_a ^ m * 16));
  }
  __device__ __forceinline__ void load_b(FragmentB* b, const bf16* tile, unsigned n, unsigned k) const {
    std::uint32_t r[4];
    load_matrices_transposed(r, tile + k * (16 * Lines) + (base_b ^ n * 16));
    b[0] = {{r[0], r[1]}};
    b[1] = {{r[2], r[3]}};
  }
};

template <int M, int N>
struct Bf16Tile {
  using Element = bf16;
  static constexpr int tile_rows = M;
  static constexpr int tile_columns = N;
  // The sums of one warp are a square.
  static constexpr int part = M == 64 ? 32 : 64;
  static constexpr int warps_across = N / part;
  static constexpr int threads = M / part * warps_across * warp_size;
  // On a multiprocessor, as registers and shared memory allow; fewer where addresses are found row by row.
  static constexpr int blocks = part == 32 ? 4 : 256 / threads;
  static constexpr int blocks_by_positions = part == 32 ? 3 : 256 / threads;
  static constexpr int step = 32;
  static constexpr int stages = 4;
  static constexpr int stage_size = (M + N) * step;
  static constexpr std::size_t shared_bytes = sizeof(bf16) * stage_size * stages;

  static constexpr int row_tiles = part / 16;
  static constexpr int column_tiles = part / 8;
  FragmentC c[row_tiles][column_tiles];

  // What this thread has of them: `rows` rows, in each `pieces` pieces of `width` columns. A gradient's pieces are on
  // their way `pieces_at_once` at a time, as far as registers go.
  static constexpr int rows = 2 * row_tiles;
  static constexpr int pieces = column_tiles;
  static constexpr int pieces_at_once = pieces;
  static constexpr int width = 2;
  __device__ static __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / warp_size; }
  __device__ static __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % warp_size; }
  __device__ static __forceinline__ int first_row() { return warp() / warps_across * part; }
  __device__ static __forceinline__ int first_column() { return warp() % warps_across * part; }
  __device__ static __forceinline__ int row(int i) { return first_row() + i * 8 + lane() / 4; }
  __device__ static __forceinline__ int column(int j) { return first_column() + j * 8 + lane() % 4 * 2; }
  __device__ __forceinline__ float& at(int i, int j, int e) { return c[i / 2][j].c[i % 2 * 2 + e]; }

  // Adds the product to the sums. All threads of the block come here together; when one returns, none reads the shared
  // memory any more.
  template <bool ALines, bool BLines, bool Aligned, class Positions>
  __device__ __forceinline__ void multiply(bf16* shared, const Operand<bf16>& a, const Operand<bf16>& b,
                                           Positions positions) {
    using A = Bf16Operand<M, ALines>;
    using B = Bf16Operand<N, BLines>;
    static_assert(ALines || BLines || M == N, "a thread has the same positions of both operands");
    constexpr int units = (BLines ? M : N) / 8;  // of a position
    const int steps = (positions.count + step - 1) / step;
    if (steps == 0) return;
    const auto copy = [&](int s) {
      bf16* const to = shared + s % stages * stage_size;
      int rows_of_mine[step * units / threads];
      if constexpr (!ALines || !BLines) {
#pragma unroll
        for (int i = 0; i < step * units / threads; ++i) {
          rows_of_mine[i] = positions.row(s * step + static_cast<int>(threadIdx.x) / units + i * (threads / units));
        }
      }
      A::template copy<Aligned, threads>(to, a, s * step, positions.count, rows_of_mine);
      B::template copy<Aligned, threads>(to + M * step, b, s * step, positions.count, rows_of_mine);
    };
    const A lines_a(static_cast<unsigned>(first_row()));
    const B lines_b(static_cast<unsigned>(first_column()));
    FragmentA fa[2][row_tiles];
    FragmentB fb[2][column_tiles];
    const auto load = [&](int s, unsigned k) {
      const bf16* const from = shared + s % stages * stage_size;
#pragma unroll
      for (unsigned m = 0; m < row_tiles; ++m) lines_a.load_a(fa[k][m], from, m, k);
#pragma unroll
      for (unsigned n = 0; n < column_tiles / 2; ++n) lines_b.load_b(&fb[k][2 * n], from + M * step, n, k);
    };

#pragma unroll
    for (int s = 0; s < stages - 1; ++s) {
      if (s < steps) copy(s);
      commit_copies();
    }
    wait_for_copies<stages - 2>();
    __syncthreads();
    load(0, 0);
    // The fragments of the next 16 positions are on their way while these are multiplied.
#pragma unroll 1
    for (int s = 0; s < steps; ++s) {
      load(s, 1);
      multiply_fragments(fa[0], fb[0]);
      // Into the stage whose last fragments all warps had before the barrier of the step before.
      if (s + stages - 1 < steps) copy(s + stages - 1);
      commit_copies();
      wait_for_copies<stages - 2>();
      __syncthreads();
      if (s + 1 < steps) load(s + 1, 0);
      multiply_fragments(fa[1], fb[1]);
    }
  }

 private:
  __device__ __forceinline__ void multiply_fragments(const FragmentA (&fa)[row_tiles],
                                                     const FragmentB (&fb)[column_tiles]) {
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
      for (int n = 0; n < column_tiles; ++n) mma(c[m][n], fa[m], fb[n]);
    }
  }
};

}  // namespace switchyard::cuda
