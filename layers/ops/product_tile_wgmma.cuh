// A tile of a product of bf16 matrices by wgmma: 64 rows and all columns of the [M, N] sums for each warpgroup, steps
// of 64 positions through stages of shared memory. Each sum is one chain of m64nNk16 from its start, in ascending
// positions, as it is with mma.sync; what an instruction does inside is its own, so that a run takes the one or the
// other for all its products.
//
// What bounds it is shared memory, 128 bytes a cycle: N columns take N / 2 cycles of the tensor cores for 16 positions,
// in which they read 32 (64 + N) bytes, and copies write 32 (M + N) bytes in M / 64 of these times. 128 x 256 asks for
// all of that (80 and 48 bytes a cycle), 128 x 128 for a quarter more than there is (96 and 64), 64 x 64 for twice
// that.
#pragma once

#include "layers/ops/product_operands.cuh"
#include "layers/ops/tensor_cores_cuda.h"
#include "layers/ops/wgmma.cuh"

#include <cstdint>

namespace switchyard::cuda {

// Positions [begin, begin + 64) of an operand on their way into squares. A thread has one unit of 16 bytes in rows that
// lie Threads / 8 apart, a multiple of 8: the permutation is the same in all of them. Eight threads copy what lies side
// by side.
template <int Lines, bool ByLines, bool Aligned, int Threads>
struct SquaresCopy {
  static constexpr int rows_at_once = Threads / 8;
  static constexpr int position_rows = 64 / rows_at_once;  // of a square that lies by positions

  // rows: of this thread's positions, -1 where there is none; for an operand by positions.
  __device__ static __forceinline__ void start(bf16* squares, const Operand<bf16>& from, int begin, int count,
                                               const int (&rows)[position_rows]) {
    const int unit = static_cast<int>(threadIdx.x) % 8;
    const int first = static_cast<int>(threadIdx.x) / 8;
    bf16* const to = squares + first * 64 + (unit ^ first % 8) * 8;
    if constexpr (ByLines) {
      const int p = begin + unit * 8;
      const bf16* const at = from.first + from.stride * first + p;
#pragma unroll
      for (int i = 0; i < Lines / rows_at_once; ++i) {
        const int line = i * rows_at_once;
        copy(to + line * 64, at + from.stride * line, first + line < from.lines ? count - p : 0);
      }
    } else {
#pragma unroll
      for (int i = 0; i < position_rows; ++i) {
        const bf16* const at = from.first + from.stride * rows[i] + unit * 8;
#pragma unroll
        for (int line = 0; line < Lines; line += 64) {
          copy(to + line * 64 + i * rows_at_once * 64, at + line, rows[i] >= 0 ? from.lines - unit * 8 - line : 0);
        }
      }
    }
  }

 private:
  // 8 elements, of which the first `valid` are there.
  __device__ static __forceinline__ void copy(bf16* to_shared, const bf16* from, int valid) {
    if constexpr (Aligned) {
      copy_async<16>(to_shared, from, valid > 0);
    } else {
      store_for_wgmma(load_elements<false>(from, valid), to_shared);
    }
  }
};

// InFlight: steps whose products may be under way while the next one's begin, 0 or 1. 1 keeps the tensor cores busy
// over a barrier; with 0 another block of the multiprocessor must, and the copies have a stage more.
template <int M, int N, int Stages, int InFlight, int Blocks>
struct WgmmaTile {
  using Element = bf16;
  static constexpr int tile_rows = M;
  static constexpr int tile_columns = N;
  static constexpr int threads = M / 64 * 128;
  static constexpr int blocks = Blocks;  // on a multiprocessor, as registers and shared memory allow
  static constexpr int blocks_by_positions = Blocks;
  static constexpr int step = 64;
  static constexpr int ahead = Stages - 1 - InFlight;  // steps whose copies are under way
  static_assert(M % 64 == 0 && ahead >= 1);
  static constexpr int stage_size = (M + N) * step;
  static constexpr std::size_t shared_bytes = sizeof(bf16) * stage_size * Stages + 1024;  // to align it

  float c[N / 2];

  static constexpr int rows = 2;
  static constexpr int pieces = N / 8;
  static constexpr int pieces_at_once = N == 128 ? 2 : 8;  // 128 registers a thread leave no room for more
  static constexpr int width = 2;
  __device__ static __forceinline__ int row(int i) {
    const int thread = static_cast<int>(threadIdx.x);
    return thread / 32 * 16 + i * 8 + thread % 32 / 4;
  }
  __device__ static __forceinline__ int column(int j) { return j * 8 + static_cast<int>(threadIdx.x) % 4 * 2; }
  __device__ __forceinline__ float& at(int i, int j, int e) { return c[j * 4 + i * 2 + e]; }

  // Adds the product to the sums. All threads of the block come here together; the shared memory is free again after
  // the next barrier.
  template <bool ALines, bool BLines, bool Aligned, class Positions>
  __device__ __forceinline__ void multiply(bf16* shared, const Operand<bf16>& a, const Operand<bf16>& b,
                                           Positions positions) {
    begin<ALines, BLines, Aligned>(shared, a, b, positions);
    multiply_begun<ALines, BLines, Aligned>(shared, a, b, positions);
  }

  // The same in two parts. The first starts the copies of the first steps, and may be called before the sums of
  // another tile are stored.
  template <bool ALines, bool BLines, bool Aligned, class Positions>
  __device__ static __forceinline__ void begin(bf16* shared, const Operand<bf16>& a, const Operand<bf16>& b,
                                               Positions& positions) {
#pragma unroll
    for (int s = 0; s < ahead; ++s) {
      if (s * step < positions.count) copy<ALines, BLines, Aligned>(aligned(shared), a, b, positions, s);
      commit_copies();
    }
  }
  template <bool ALines, bool BLines, bool Aligned, class Positions>
  __device__ __forceinline__ void multiply_begun(bf16* unaligned, const Operand<bf16>& a, const Operand<bf16>& b,
                                                 Positions& positions) {
    const int steps = (positions.count + step - 1) / step;
    if (steps == 0) return;
    bf16* const shared = aligned(unaligned);
    const std::uint32_t address = shared_address(shared);
    const SharedMatrix first_a = shared_matrix(address + threadIdx.x / 128 * square_bytes);
    const SharedMatrix first_b = shared_matrix(address + M * step * sizeof(bf16));

    const auto begin_step = [&](int s) {
      wait_for_copies<ahead - 1>();
      show_to_wgmma();
      // All copies of this step are there, and no warpgroup reads the stage that the copies below go to: it has waited
      // for the products of that stage in the turn before.
      __syncthreads();
      const unsigned stage = static_cast<unsigned>(s % Stages * stage_size) * sizeof(bf16);
      begin_wgmma();
#pragma unroll
      for (unsigned k = 0; k < step / 16; ++k) {
        wgmma<N, ALines, BLines>(c, first_a.at(stage + k * next_positions<ALines>),
                                 first_b.at(stage + k * next_positions<BLines>));
      }
      commit_wgmma();
      if (s + ahead < steps) copy<ALines, BLines, Aligned>(shared, a, b, positions, s + ahead);
      commit_copies();
    };
    begin_step(0);
#pragma unroll 1
    for (int s = 1; s < steps; ++s) {
      if constexpr (InFlight == 0) wait_for_wgmma<0>();
      begin_step(s);
      if constexpr (InFlight == 1) wait_for_wgmma<1>();
    }
    wait_for_sums(c);
  }

 private:
  __device__ static __forceinline__ bf16* aligned(bf16* shared) {
    const std::uint32_t lies_at = shared_address(shared);
    return shared + ((lies_at + 1023) / 1024 * 1024 - lies_at) / sizeof(bf16);
  }

  // Starts the copies of step s.
  template <bool ALines, bool BLines, bool Aligned, class Positions>
  __device__ static __forceinline__ void copy(bf16* shared, const Operand<bf16>& a, const Operand<bf16>& b,
                                              Positions& positions, int s) {
    using CopyA = SquaresCopy<M, ALines, Aligned, threads>;
    using CopyB = SquaresCopy<N, BLines, Aligned, threads>;
    bf16* const to = shared + s % Stages * stage_size;
    int rows_of_mine[CopyA::position_rows];
    if constexpr (!ALines || !BLines) {
#pragma unroll
      for (int i = 0; i < CopyA::position_rows; ++i) {
        rows_of_mine[i] = positions.row(s * step + static_cast<int>(threadIdx.x) / 8 + i * CopyA::rows_at_once);
      }
    }
    CopyA::start(to, a, s * step, positions.count, rows_of_mine);
    CopyB::start(to + M * step, b, s * step, positions.count, rows_of_mine);
  }
};

using WgmmaSmallTile = WgmmaTile<64, 64, 4, 1, 3>;
using WgmmaLargeTile = WgmmaTile<128, 128, 3, 0, 2>;
using WgmmaWideTile = WgmmaTile<128, 256, 4, 1, 1>;

// Which tiles a result takes that has `row_tiles` tiles of 128 rows at the most.
inline TensorCores wgmma_tiles(TensorCores wanted, std::int64_t row_tiles, std::int64_t columns,
                               std::int64_t multiprocessors, bool few_rows) {
  if (wanted != TensorCores::Best) return wanted;
  const std::int64_t large = row_tiles * ((columns + 127) / 128), wide = row_tiles * ((columns + 255) / 256);
  // Small tiles waste less where groups have few rows, and give more multiprocessors something to do.
  if (few_rows || columns <= 64 || large < multiprocessors) return TensorCores::WgmmaSmall;
  // A multiprocessor works on one wide tile at a time, or on two large ones, which take it a quarter longer: in rounds
  // of all multiprocessors, of which the last may be of a few tiles.
  const auto rounds = [&](std::int64_t tiles, std::int64_t at_once) {
    return (tiles + at_once * multiprocessors - 1) / (at_once * multiprocessors);
  };
  return 4 * rounds(wide, 1) <= 5 * rounds(large, 2) ? TensorCores::WgmmaWide : TensorCores::WgmmaLarge;
}

}  // namespace switchyard::cuda
