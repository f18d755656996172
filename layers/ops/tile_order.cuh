// In which order the tiles of a matrix are worked off.
#pragma once

#include "comm/device/kernel.cuh"

namespace switchyard::cuda {

__device__ __forceinline__ int lesser_of(int a, int b) {
  return a < b ? a : b;
}
__device__ __forceinline__ int greater_of(int a, int b) {
  return a > b ? a : b;
}

struct TileNumber {
  int row, column;
};

// Tile `number` of row_tiles x column_tiles: bands of `Band` rows of tiles, in each column by column. As many tiles as
// a GPU works on at a time are then about a square of the result, which wants the least of the operands' rows and
// columns; these are in the second-level cache when the next tile asks for them.
template <int Band>
__device__ __forceinline__ TileNumber banded_tile(int number, int row_tiles, int column_tiles) {
  const int first = number / (Band * column_tiles) * Band;
  const int height = lesser_of(Band, row_tiles - first);
  const int in_band = number - first * column_tiles;
  return {first + in_band % height, in_band / height};
}

}  // namespace switchyard::cuda
