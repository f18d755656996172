#include "comm/device/part_batches.cuh"
#include "comm/reduce/pieces_cuda.h"

#include <vector>

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;
constexpr int vectors = 4;  // of 16 bytes, that a thread has under way at once

// The vectors of a piece are those of its memory: the first and the last may lie in it in part only.
template <class T>
struct Vectors {
  static constexpr int width = vector_size<T>;
  static constexpr std::int64_t step = threads * width;  // from one vector of a thread to its next
  std::int64_t begin;                                    // the element at which a thread's first vector begins
  bool inside;                                           // all of its vectors lie in the piece

  // skipped: elements of the first vector that come before the piece; `count` of them if no access is to be of a
  // vector.
  __device__ __forceinline__ Vectors(unsigned block, int skipped, bool together, std::int64_t count)
      : begin((std::int64_t{block} * vectors * threads + threadIdx.x) * width - skipped),
        inside(together && begin >= 0 && begin + (vectors - 1) * step + width <= count) {}

  // f(element) for those of the thread's vectors that lie in the piece.
  template <class F>
  __device__ __forceinline__ void one_by_one(std::int64_t count, const F& f) const {
#pragma unroll 1
    for (int v = 0; v < vectors; ++v) {
      const std::int64_t first = begin + v * step;
#pragma unroll 1
      for (std::int64_t i = first < 0 ? 0 : first; i < first + width && i < count; ++i) f(i);
    }
  }
};

// A piece as the kernels see it: with where it lies beside the 16-byte boundaries.
template <class Piece>
struct Placed {
  Piece piece;
  int skipped;    // elements between the boundary and the piece
  bool together;  // all addresses of an element lie alike
};

template <class T>
int elements_past_boundary(const void* address) {
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(address) % 16 / sizeof(T));
}
template <class T>
unsigned blocks_of(std::int64_t count, int skipped) {
  return count == 0 ? 0 : blocks_for(count + skipped, std::int64_t{vectors} * threads * vector_size<T>);
}

using Copied = Placed<CopiedPiece>;

__global__ void __launch_bounds__(threads) copy_kernel(const __grid_constant__ PartBatch<Copied> batch) {
  using V = Vector<unsigned>;
  const auto [number, block] = place_of(batch);
  const Copied& placed = batch.part[number];
  auto* const to = static_cast<unsigned*>(placed.piece.to);
  const auto* const from = static_cast<const unsigned*>(placed.piece.from);
  const std::int64_t count = placed.piece.bytes / 4;
  const Vectors<unsigned> mine(block, placed.skipped, placed.together, count);
  if (!mine.inside) return mine.one_by_one(count, [&](std::int64_t i) { to[i] = from[i]; });
  V loaded[vectors];
#pragma unroll
  for (int v = 0; v < vectors; ++v) loaded[v] = V::load(from + mine.begin + v * mine.step);
#pragma unroll
  for (int v = 0; v < vectors; ++v) loaded[v].store(to + mine.begin + v * mine.step);
}

template <class T>
using Summed = Placed<SummedPiece<T>>;

// The share of holder h.
template <class T>
__device__ __forceinline__ const T* share_of(const SummedPiece<T>& piece, int h) {
  return h == piece.me ? piece.own : piece.others + (h < piece.me ? h : h - 1) * piece.stride;
}

template <class T>
__global__ void __launch_bounds__(threads) sum_kernel(const __grid_constant__ PartBatch<Summed<T>> batch) {
  using V = Vector<T>;
  const auto [number, block] = place_of(batch);
  const SummedPiece<T> piece = batch.part[number].piece;
  const Vectors<T> mine(block, batch.part[number].skipped, batch.part[number].together, piece.count);
  if (!mine.inside) {
    return mine.one_by_one(piece.count, [&](std::int64_t i) {
      T sum = share_of(piece, 0)[i];
      for (int h = 1; h < piece.holders; ++h) sum += share_of(piece, h)[i];
      piece.own[i] = sum;
    });
  }
  V sum[vectors];
#pragma unroll
  for (int v = 0; v < vectors; ++v) sum[v] = V::load(share_of(piece, 0) + mine.begin + v * mine.step);
#pragma unroll 2
  for (int h = 1; h < piece.holders; ++h) {
    const T* const share = share_of(piece, h) + mine.begin;
    V loaded[vectors];
#pragma unroll
    for (int v = 0; v < vectors; ++v) loaded[v] = V::load(share + v * mine.step);
#pragma unroll
    for (int v = 0; v < vectors; ++v) {
#pragma unroll
      for (int i = 0; i < mine.width; ++i) sum[v].at[i] += loaded[v].at[i];
    }
  }
#pragma unroll
  for (int v = 0; v < vectors; ++v) sum[v].store(piece.own + mine.begin + v * mine.step);
}

template <class T>
void sum_all(Device& device, std::span<const SummedPiece<T>> pieces) {
  std::vector<Summed<T>> placed;
  placed.reserve(pieces.size());
  for (const SummedPiece<T>& piece : pieces) {
    const int skipped = elements_past_boundary<T>(piece.own);
    const bool together = elements_past_boundary<T>(piece.others) == skipped && piece.stride % vector_size<T> == 0;
    placed.push_back({piece, skipped, together});
  }
  for_batches(
      std::span<const Summed<T>>(placed), [](const Summed<T>& p) { return blocks_of<T>(p.piece.count, p.skipped); },
      [&](const PartBatch<Summed<T>>& batch, std::int64_t) {
        launch(stream_of(device), sum_kernel<T>, batch.blocks(), threads, 0, batch);
      });
}

}  // namespace

void copy_pieces(Device& device, std::span<const CopiedPiece> pieces) {
  std::vector<Copied> placed;
  placed.reserve(pieces.size());
  for (const CopiedPiece& piece : pieces) {
    require(piece.bytes % 4 == 0, "a piece of {} bytes is to be copied by words of 4", piece.bytes);
    const int skipped = elements_past_boundary<unsigned>(piece.to);
    placed.push_back({piece, skipped, elements_past_boundary<unsigned>(piece.from) == skipped});
  }
  for_batches(
      std::span<const Copied>(placed),
      [](const Copied& p) { return blocks_of<unsigned>(p.piece.bytes / 4, p.skipped); },
      [&](const PartBatch<Copied>& batch, std::int64_t) {
        launch(stream_of(device), copy_kernel, batch.blocks(), threads, 0, batch);
      });
}

void sum_pieces(Device& device, std::span<const SummedPiece<float>> pieces) {
  sum_all(device, pieces);
}
void sum_pieces(Device& device, std::span<const SummedPiece<std::int64_t>> pieces) {
  sum_all(device, pieces);
}

}  // namespace switchyard::cuda
