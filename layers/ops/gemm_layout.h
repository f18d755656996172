// How the right-hand side of a product is packed; the same for every SIMD target, so that packed weights can be read by
// whichever kernel the CPU has.
//
// B[K, N] is cut into blocks of `depth` consecutive k and, in each block, into panels of 16 columns. A panel is
// [depth][16], the last one padded with zeros; the panels of a block lie one after the other, so the whole is read as
// one stream.
#pragma once

#include <algorithm>
#include <cstdint>

namespace switchyard::gemm_layout {

inline constexpr std::int64_t panel_width = 16;
// The block of left-hand rows, block_rows x max_depth floats (336 KiB), is what stays in the second-level cache.
inline constexpr std::int64_t max_depth = 512;
inline constexpr std::int64_t block_rows = 168;  // a multiple of the kernels' 6 and 14 rows

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
constexpr std::int64_t panels(std::int64_t n) {
  return divide_up(n, panel_width);
}

// `total` cut into the fewest pieces of at most `most` elements, which differ by one at most.
struct Cut {
  std::int64_t total;
  std::int64_t pieces;
  Cut(std::int64_t all, std::int64_t most) : total(all), pieces(divide_up(all, most)) {}
  std::int64_t begin(std::int64_t piece) const { return total / pieces * piece + std::min(piece, total % pieces); }
  std::int64_t size(std::int64_t piece) const { return total / pieces + (piece < total % pieces ? 1 : 0); }
};

}  // namespace switchyard::gemm_layout
