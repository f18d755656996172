// The register-blocked heart of all matrix products: a tile of C, up to 14 x 32 with AVX-512 and 6 x 16 with AVX2, held
// in registers while k runs. Included once for each SIMD target, as Highway's headers are.
//
// Left rows are packed as [depth][rows of the tile], the right side in panels of 16 columns, [depth][16]. Every element
// of C is one chain c = fma(a[k], b[k], c) over ascending k, whatever the tile's shape: tiles may be chosen for speed.
#if defined(SWITCHYARD_GEMM_KERNEL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_GEMM_KERNEL_INL_H_
#undef SWITCHYARD_GEMM_KERNEL_INL_H_
#else
#define SWITCHYARD_GEMM_KERNEL_INL_H_
#endif

#include "layers/ops/gemm_layout.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

static_assert(HWY_NATIVE_FMA, "a chain of fused multiply-adds needs a target that has them");

struct TileProduct {
  std::int64_t depth;
  const float* left;          // [depth][rows]
  const float* right;         // the first panel
  std::int64_t panel_stride;  // floats from one panel to the next
  float* c;                   // [rows][panels * 16]
  std::int64_t c_stride;
  bool from_c;  // chains go on from c; else they start at zero

  // What the caller will want next is fetched while the arithmetic runs, a bit every few k: `touch_lines` cache lines
  // of each row, rows `touch_stride` bytes apart, and a stream of `ahead_lines`. On the processors tried, hints for the
  // second-level cache alone did nothing, so all comes into the first.
  const void* touch = nullptr;
  std::int64_t touch_stride = 0;
  int touch_lines = 0;
  const void* ahead = nullptr;
  std::int64_t ahead_lines = 0;
};

inline constexpr int tile_lanes =
    static_cast<int>(hwy::HWY_NAMESPACE::MaxLanes(hwy::HWY_NAMESPACE::CappedTag<float, 16>()));
inline constexpr int vector_registers = HWY_TARGET == HWY_AVX2 ? 16 : 32;

// The tile, the vectors of the shorter side, and one more for the other side.
constexpr bool tile_fits(int rows, int panels) {
  const int vectors = panels * static_cast<int>(gemm_layout::panel_width) / tile_lanes;
  return rows * vectors + (rows < vectors ? rows : vectors) + 1 <= vector_registers;
}
constexpr int widest_tile(int rows) {
  return tile_fits(rows, 4) ? 4 : tile_fits(rows, 2) ? 2 : tile_fits(rows, 1) ? 1 : 0;
}
constexpr int tallest_tile() {
  int rows = 1;
  while (tile_fits(rows + 1, vector_registers == 32 && tile_lanes == 16 ? 2 : 1)) ++rows;
  return rows;
}
inline constexpr int max_tile_rows = tallest_tile();
inline constexpr int max_tile_panels = 4;

template <int kRows, int kPanels>
void multiply_tile(const TileProduct& tile) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<float, 16> d;
  using V = hn::Vec<decltype(d)>;
  constexpr int per_panel = static_cast<int>(gemm_layout::panel_width) / tile_lanes;
  constexpr int vectors = kPanels * per_panel;
  V acc[kRows][vectors];

  if (tile.from_c) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) acc[r][v] = hn::LoadU(d, tile.c + r * tile.c_stride + v * tile_lanes);
    }
  } else {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) acc[r][v] = hn::Zero(d);
    }
  }

  const float* HWY_RESTRICT left = tile.left;
  const float* HWY_RESTRICT right = tile.right;
  const std::int64_t panel_stride = tile.panel_stride;
  const std::int64_t step = std::clamp<std::int64_t>(tile.depth / kRows, 1, 8);
  const std::int64_t ahead_each = gemm_layout::divide_up(tile.ahead_lines * step, tile.depth);
  const char* touch = static_cast<const char*>(tile.touch);
  const char* ahead = static_cast<const char*>(tile.ahead);
  int touches = tile.touch_lines > 0 ? kRows : 0;
  std::int64_t k = 0;
#pragma GCC unroll 1
  while (k < tile.depth) {
    if (touches > 0) {
      for (int line = 0; line < tile.touch_lines; ++line) __builtin_prefetch(touch + line * 64, 0, 3);
      touch += tile.touch_stride;
      --touches;
    }
    for (std::int64_t line = 0; line < ahead_each; ++line) __builtin_prefetch(ahead + line * 64, 0, 3);
    ahead += ahead_each * 64;
    const std::int64_t end = std::min(k + step, tile.depth);
#pragma GCC unroll 1
    for (; k < end; ++k) {
      if constexpr (kRows < vectors) {
        V a[kRows];
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) a[r] = hn::Set(d, left[r]);
#pragma GCC unroll 16
        for (int v = 0; v < vectors; ++v) {
          const V b = hn::Load(d, right + v / per_panel * panel_stride + v % per_panel * tile_lanes);
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) acc[r][v] = hn::MulAdd(a[r], b, acc[r][v]);
        }
      } else {
        V b[vectors];
#pragma GCC unroll 16
        for (int v = 0; v < vectors; ++v) {
          b[v] = hn::Load(d, right + v / per_panel * panel_stride + v % per_panel * tile_lanes);
        }
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const V a = hn::Set(d, left[r]);
#pragma GCC unroll 16
          for (int v = 0; v < vectors; ++v) acc[r][v] = hn::MulAdd(a, b[v], acc[r][v]);
        }
      }
      left += kRows;
      right += gemm_layout::panel_width;
    }
  }

  for (; touches > 0; --touches, touch += tile.touch_stride) {
    for (int line = 0; line < tile.touch_lines; ++line) __builtin_prefetch(touch + line * 64, 0, 3);
  }

#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) hn::StoreU(acc[r][v], d, tile.c + r * tile.c_stride + v * tile_lanes);
  }
}

using TileKernel = void (*)(const TileProduct&);

// The kernel for `rows` (1 to max_tile_rows) and 1, 2 or 4 panels; null where such a tile does not fit the registers.
inline TileKernel tile_kernel(int rows, int panels) {
  constexpr auto table = []<int... R>(std::integer_sequence<int, R...>) {
    constexpr auto pick = []<int kRows, int kPanels>() -> TileKernel {
      if constexpr (tile_fits(kRows, kPanels)) return &multiply_tile<kRows, kPanels>;
      return nullptr;
    };
    return std::array<std::array<TileKernel, 3>, sizeof...(R)>{
        {{pick.template operator()<R + 1, 1>(), pick.template operator()<R + 1, 2>(),
          pick.template operator()<R + 1, 4>()}...}};
  }
  (std::make_integer_sequence<int, max_tile_rows>());
  return table[static_cast<std::size_t>(rows - 1)][static_cast<std::size_t>(panels == 4 ? 2 : panels - 1)];
}

// out[k][r] = x[r * stride + k] for r < rows, k < depth; `rows` floats from one k to the next.
HWY_INLINE void pack_transposed_rows(const float* HWY_RESTRICT x, std::int64_t stride, std::int64_t rows,
                                     std::int64_t depth, float* HWY_RESTRICT out) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> d2;
  if (rows < 4) {
    for (std::int64_t k = 0; k < depth; ++k) {
      for (std::int64_t r = 0; r < rows; ++r) out[k * rows + r] = x[r * stride + k];
    }
    return;
  }
  // Squares of 4 x 4; the last four rows may overlap those before.
  for (std::int64_t group = 0; group < rows; group += 4) {
    const std::int64_t r = std::min(group, rows - 4);
    const float* HWY_RESTRICT from = x + r * stride;
    float* HWY_RESTRICT to = out + r;
    std::int64_t k = 0;
    for (; k + 4 <= depth; k += 4) {
      const auto x0 = hn::LoadU(d, from + k);
      const auto x1 = hn::LoadU(d, from + k + stride);
      const auto x2 = hn::LoadU(d, from + k + 2 * stride);
      const auto x3 = hn::LoadU(d, from + k + 3 * stride);
      const auto low01 = hn::BitCast(d2, hn::InterleaveLower(d, x0, x1));
      const auto high01 = hn::BitCast(d2, hn::InterleaveUpper(d, x0, x1));
      const auto low23 = hn::BitCast(d2, hn::InterleaveLower(d, x2, x3));
      const auto high23 = hn::BitCast(d2, hn::InterleaveUpper(d, x2, x3));
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, low01, low23)), d, to + k * rows);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, low01, low23)), d, to + (k + 1) * rows);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d2, high01, high23)), d, to + (k + 2) * rows);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d2, high01, high23)), d, to + (k + 3) * rows);
    }
    for (; k < depth; ++k) {
      for (std::int64_t i = 0; i < 4; ++i) to[k * rows + i] = from[i * stride + k];
    }
  }
}

// Copies `width` floats; vectors may overlap, nothing is touched beyond.
HWY_INLINE void copy_floats(const float* HWY_RESTRICT from, std::int64_t width, float* HWY_RESTRICT to) {
  namespace hn = hwy::HWY_NAMESPACE;
  const auto copy = [&](auto d, std::int64_t lanes) {
    for (std::int64_t i = 0; i + lanes < width; i += lanes) hn::StoreU(hn::LoadU(d, from + i), d, to + i);
    hn::StoreU(hn::LoadU(d, from + width - lanes), d, to + width - lanes);
  };
  if (width >= 8) {
    copy(hn::CappedTag<float, 8>(), hn::MaxLanes(hn::CappedTag<float, 8>()));
  } else if (width >= 4) {
    copy(hn::FixedTag<float, 4>(), 4);
  } else {
    for (std::int64_t i = 0; i < width; ++i) to[i] = from[i];
  }
}

// The left side from rows of k: the tiles that `tiles` makes of the columns of x, [depth][rows of the tile] each, of
// which the `count` rows of x fill those from `first` on.
HWY_INLINE void pack_tiles(const float* HWY_RESTRICT x, std::int64_t stride, const gemm_layout::Cut& tiles,
                           std::int64_t count, std::int64_t first, std::int64_t depth, float* HWY_RESTRICT out) {
  const std::int64_t low = tiles.total / tiles.pieces;  // the last tiles' rows; the first have one more
  const std::int64_t higher = tiles.total % tiles.pieces;
  // A few rows of x at a time: each tile is written in runs of whole cache lines. Tiles are often a multiple of the
  // page size apart, and in turn they would push one another's lines out of the first-level cache half written. The
  // rows after these, which lie too far apart for the hardware to foresee them, are fetched meanwhile.
  constexpr std::int64_t together = 16;
  for (std::int64_t begin = 0; begin < count; begin += together) {
    const std::int64_t end = std::min(begin + together, count);
    for (std::int64_t k = end; k < std::min(end + together, count); ++k) {
      const auto* const line = reinterpret_cast<const char*>(x + k * stride);
      for (std::int64_t byte = 0; byte < tiles.total * 4; byte += 64) __builtin_prefetch(line + byte, 0, 2);
    }
    const float* from = x;
    float* to = out;
    for (std::int64_t t = 0; t < tiles.pieces; ++t) {
      const std::int64_t width = low + (t < higher ? 1 : 0);
      for (std::int64_t k = begin; k < end; ++k) copy_floats(from + k * stride, width, to + (first + k) * width);
      from += width;
      to += width * depth;
    }
  }
}

// The panels of `columns` columns of x: out[p][first + k][j] = x[k * stride + 16 * p + j], zero beyond the columns, for
// `count` of the panels' `depth` rows.
HWY_INLINE void pack_panels(const float* HWY_RESTRICT x, std::int64_t stride, std::int64_t columns, std::int64_t count,
                            std::int64_t first, std::int64_t depth, float* HWY_RESTRICT out) {
  namespace hn = hwy::HWY_NAMESPACE;
  constexpr std::int64_t panel_width = gemm_layout::panel_width;
  const hn::CappedTag<float, 16> d;
  const std::int64_t whole = columns / panel_width;
  // A few rows of x at a time: they are read, and the panels written, in runs that the caches like.
  constexpr std::int64_t together = 4;
  for (std::int64_t begin = 0; begin < count; begin += together) {
    const std::int64_t end = std::min(begin + together, count);
    for (std::int64_t p = 0; p < whole; ++p) {
      for (std::int64_t k = begin; k < end; ++k) {
#pragma GCC unroll 4
        for (int v = 0; v < panel_width; v += tile_lanes) {
          hn::Store(hn::LoadU(d, x + k * stride + p * panel_width + v), d,
                    out + (p * depth + first + k) * panel_width + v);
        }
      }
    }
    for (std::int64_t k = begin; k < end && whole * panel_width < columns; ++k) {
      const float* const from = x + k * stride + whole * panel_width;
      float* const to = out + (whole * depth + first + k) * panel_width;
      for (std::int64_t j = 0; j < panel_width; ++j) to[j] = j < columns % panel_width ? from[j] : 0.0f;
    }
  }
}

// One panel from the other orientation: out[k][j] = x[j * stride + k] for j < width, zero for the other j < 16.
HWY_INLINE void pack_panel_transposed(const float* HWY_RESTRICT x, std::int64_t stride, std::int64_t width,
                                      std::int64_t depth, float* HWY_RESTRICT out) {
  constexpr std::int64_t panel_width = gemm_layout::panel_width;
  if (width == panel_width) {
    pack_transposed_rows(x, stride, panel_width, depth, out);
    return;
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    for (std::int64_t j = 0; j < panel_width; ++j) out[k * panel_width + j] = j < width ? x[j * stride + k] : 0.0f;
  }
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SWITCHYARD_GEMM_KERNEL_INL_H_
