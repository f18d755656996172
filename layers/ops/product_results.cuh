// Where the sums of a tile begin and where they go: a matrix of activations, or a parameter's gradient. A thread has
// some rows of a tile and pieces of columns in each (see the tiles); it reads all that a row needs before it writes.
#pragma once

#include "layers/ops/mma.cuh"
#include "layers/tensor/gradient_sum.cuh"

#include <cstdint>
#include <type_traits>

namespace switchyard::cuda {

// A tile's part of a row-major matrix; what lies outside `rows` and `columns` is not touched. in_pieces: each piece of
// a row is aligned to its size and there as a whole or not at all.
template <class T>
struct ResultPart {
  T* first;
  std::int64_t stride;
  int rows, columns;
  bool in_pieces;
  bool in_vectors = false;  // the same of 16 bytes: rows are aligned to them and end with whole ones
};

template <class T, int Width>
__device__ __forceinline__ Vector<T, Width> load_piece(const T* from, int valid, bool whole) {
  if (whole) {
    if (valid > 0) return Vector<T, Width>::load(from);
    valid = 0;
  }
  Vector<T, Width> v;
#pragma unroll
  for (int e = 0; e < Width; ++e) v.at[e] = e < valid ? from[e] : T{};
  return v;
}
template <class T, int Width>
__device__ __forceinline__ void store_piece(T* to, const Vector<T, Width>& v, int valid, bool whole) {
  if (whole) {
    if (valid > 0) v.store(to);
    return;
  }
#pragma unroll
  for (int e = 0; e < Width; ++e) {
    if (e < valid) to[e] = v.at[e];
  }
}

template <class Tile>
__device__ __forceinline__ void start_from_zero(Tile& tile) {
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::pieces; ++j) {
#pragma unroll
      for (int e = 0; e < Tile::width; ++e) tile.at(i, j, e) = 0;
    }
  }
}

template <class Tile, class T>
__device__ __forceinline__ void start_from(Tile& tile, const ResultPart<T>& y) {
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i) {
    const int row = Tile::row(i);
#pragma unroll
    for (int j = 0; j < Tile::pieces; ++j) {
      const int column = Tile::column(j);
      const auto v = load_piece<T, Tile::width>(y.first + y.stride * row + column,
                                                row < y.rows ? y.columns - column : 0, y.in_pieces);
#pragma unroll
      for (int e = 0; e < Tile::width; ++e) tile.at(i, j, e) = to_float(v.at[e]);
    }
  }
}

// Sums of tensor cores, of which a lane has two neighbours in each eight columns, as bf16: the four lanes of a row give
// each other what is theirs, so that each stores eight columns at once and none of the memory's sectors is written in
// parts.
template <class Tile>
__device__ __forceinline__ void store_vectors(Tile& tile, const ResultPart<bf16>& y) {
  static_assert(Tile::width == 2 && Tile::pieces % 4 == 0);
  const int lane = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i) {
    const int row = Tile::row(i);
#pragma unroll
    for (int first = 0; first < Tile::pieces; first += 4) {
      std::uint32_t part[4];  // of piece first + p; then this lane's piece, first + lane, of lane p
#pragma unroll
      for (int p = 0; p < 4; ++p) part[p] = pack_bf16(tile.at(i, first + p, 0), tile.at(i, first + p, 1));
#pragma unroll
      for (int bit = 1; bit < 4; bit *= 2) {
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          if (p & bit) continue;
          const bool upper = (lane & bit) != 0;
          const std::uint32_t other = __shfl_xor_sync(whole_warp, upper ? part[p] : part[p + bit], bit);
          part[p] = upper ? other : part[p];
          part[p + bit] = upper ? part[p + bit] : other;
        }
      }
      const int column = Tile::column(first) + lane * 6;  // where the lane's two of piece `first` are, and 8 - 2 a lane
      if (row < y.rows && column < y.columns) {
        *reinterpret_cast<uint4*>(y.first + y.stride * row + column) = make_uint4(part[0], part[1], part[2], part[3]);
      }
    }
  }
}

template <class Tile, class T>
__device__ __forceinline__ void store(Tile& tile, const ResultPart<T>& y) {
  if constexpr (std::is_same_v<T, bf16> && Tile::width == 2) {
    if (y.in_vectors) return store_vectors(tile, y);
  }
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i) {
    const int row = Tile::row(i);
    if (row >= y.rows) continue;
#pragma unroll
    for (int j = 0; j < Tile::pieces; ++j) {
      const int column = Tile::column(j);
      Vector<T, Tile::width> v;
#pragma unroll
      for (int e = 0; e < Tile::width; ++e) v.at[e] = from_float<T>(tile.at(i, j, e));
      store_piece(y.first + y.stride * row + column, v, y.columns - column, y.in_pieces);
    }
  }
}

// Adds each sum to what is there: fp32, or a partial to an exact sum.
template <class Tile, class T, class Add>
__device__ __forceinline__ void add_with(Tile& tile, const ResultPart<T>& to, const Add& add) {
#pragma unroll
  for (int i = 0; i < Tile::rows; ++i) {
    const int row = Tile::row(i);
    if (row >= to.rows) continue;
    T* const at = to.first + to.stride * row;
    constexpr int at_once = Tile::pieces_at_once;
#pragma unroll
    for (int first = 0; first < Tile::pieces; first += at_once) {
      Vector<T, Tile::width> v[at_once];
#pragma unroll
      for (int j = 0; j < at_once; ++j) {
        const int column = Tile::column(first + j);
        v[j] = load_piece<T, Tile::width>(at + column, to.columns - column, to.in_pieces);
      }
#pragma unroll
      for (int j = 0; j < at_once; ++j) {
#pragma unroll
        for (int e = 0; e < Tile::width; ++e) v[j].at[e] += add(tile.at(i, first + j, e));
        const int column = Tile::column(first + j);
        store_piece(at + column, v[j], to.columns - column, to.in_pieces);
      }
    }
  }
}

}  // namespace switchyard::cuda
