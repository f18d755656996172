// Products with packed weights. A block of up to 168 rows is packed for one block of k after the other and stays in the
// second-level cache while the panels of the weights stream past it, each read once a row block.
#include "layers/ops/gemm_cpu.h"

#include "layers/ops/gemm_layout.h"

#include <algorithm>
#include <vector>

#include <omp.h>

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/gemm_cpu.cpp"
#include <hwy/foreach_target.h>  // before whatever is compiled once a target
#include "layers/ops/gemm_kernel-inl.h"
// clang-format on

#ifndef SWITCHYARD_GEMM_CPU_ROW_BLOCK
#define SWITCHYARD_GEMM_CPU_ROW_BLOCK
namespace switchyard {
struct RowBlock {
  const float* x;  // [rows, k]
  std::int64_t rows;
  const float* b;  // packed
  std::int64_t k, n;
  std::int64_t panel_begin, panel_end;
  float* y;  // [rows, n]
  bool accumulate;
};
}  // namespace switchyard
#endif

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

// The last panel may be wider than what is left of a row of C: such a tile is worked on beside it.
void multiply_edge_tile(TileKernel kernel, TileProduct tile, std::int64_t rows, std::int64_t columns) {
  HWY_ALIGN float beside[max_tile_rows * max_tile_panels * gemm_layout::panel_width] = {};
  constexpr std::int64_t stride = max_tile_panels * gemm_layout::panel_width;
  float* const c = tile.c;
  const std::size_t bytes = static_cast<std::size_t>(columns) * sizeof(float);
  if (tile.from_c) {
    for (std::int64_t r = 0; r < rows; ++r) std::memcpy(beside + r * stride, c + r * tile.c_stride, bytes);
  }
  const std::int64_t c_stride = tile.c_stride;
  tile.c = beside;
  tile.c_stride = stride;
  kernel(tile);
  for (std::int64_t r = 0; r < rows; ++r) std::memcpy(c + r * c_stride, beside + r * stride, bytes);
}

// packed: scratch memory, block_rows x max_depth.
void run_row_block(const RowBlock& block, float* packed) {
  using namespace gemm_layout;
  const Cut depths(block.k, max_depth);
  const Cut tiles(block.rows, max_tile_rows);
  const int widest = widest_tile(static_cast<int>(tiles.size(0)));

  for (std::int64_t piece = 0; piece < depths.pieces; ++piece) {
    const std::int64_t k = depths.begin(piece);
    const std::int64_t depth = depths.size(piece);
    for (std::int64_t t = 0; t < tiles.pieces; ++t) {
      const std::int64_t row = tiles.begin(t);
      pack_transposed_rows(block.x + row * block.k + k, block.k, tiles.size(t), depth, packed + row * depth);
    }
    const float* const right = block.b + k * panels(block.n) * panel_width;
    int width = widest;
    for (std::int64_t panel = block.panel_begin; panel < block.panel_end; panel += width) {
      while (panel + width > block.panel_end) width /= 2;
      const std::int64_t column = panel * panel_width;
      // The next panels follow in memory; each of several tiles fetches its share of them. Where there is one tile
      // only, the panels are read as fast as memory gives them, and the hardware's own prefetching does better alone.
      const char* const ahead = reinterpret_cast<const char*>(right + (panel + width) * depth * panel_width);
      const bool last = piece + 1 == depths.pieces && panel + width == block.panel_end;
      const std::int64_t share = last || tiles.pieces == 1 ? 0 : divide_up(width * depth, tiles.pieces);
      for (std::int64_t t = 0; t < tiles.pieces; ++t) {
        const std::int64_t row = tiles.begin(t);
        const std::int64_t rows = tiles.size(t);
        const TileKernel kernel = tile_kernel(static_cast<int>(rows), width);
        float* const c = block.y + row * block.n + column;
        const bool more = t + 1 < tiles.pieces;
        const float* const next = more ? c + rows * block.n : block.y + column + width * panel_width;
        const TileProduct tile{.depth = depth,
                               .left = packed + row * depth,
                               .right = right + panel * depth * panel_width,
                               .panel_stride = depth * panel_width,
                               .c = c,
                               .c_stride = block.n,
                               .from_c = piece > 0 || block.accumulate,
                               .touch = next,
                               .touch_stride = block.n * 4,
                               .touch_lines = width,
                               .ahead = ahead + t * share * 64,
                               .ahead_lines = share};
        if (column + width * panel_width <= block.n) {
          kernel(tile);
        } else {
          multiply_edge_tile(kernel, tile, rows, block.n - column);
        }
      }
    }
  }
}

void pack_piece(const float* source, std::int64_t k, std::int64_t n, std::int64_t k_stride, std::int64_t n_stride,
                std::int64_t panel, float* packed) {
  using namespace gemm_layout;
  const Cut depths(k, max_depth);
  const std::int64_t column = panel * panel_width;
  const std::int64_t width = std::min(panel_width, n - column);
  for (std::int64_t piece = 0; piece < depths.pieces; ++piece) {
    const std::int64_t begin = depths.begin(piece);
    const std::int64_t depth = depths.size(piece);
    const float* const from = source + begin * k_stride + column * n_stride;
    float* const to = packed + (begin * panels(n) + panel * depth) * panel_width;
    if (n_stride == 1) {
      pack_panels(from, k_stride, width, depth, 0, depth, to);
    } else {
      pack_panel_transposed(from, n_stride, width, depth, to);
    }
  }
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {
namespace {
HWY_EXPORT(run_row_block);
HWY_EXPORT(pack_piece);
}  // namespace

void pack_cpu(const float* source, std::int64_t k, std::int64_t n, std::int64_t k_stride, std::int64_t n_stride,
              float* packed) {
  if (k == 0) return;
  const std::int64_t panels = gemm_layout::panels(n);
#pragma omp parallel for schedule(static) num_threads(threads_for(k* n * 4))
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    HWY_DYNAMIC_DISPATCH(pack_piece)(source, k, n, k_stride, n_stride, panel, packed);
  }
}

void grouped_gemm_cpu(const float* x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                      std::int64_t k, std::int64_t n, float* y, bool accumulate) {
  using namespace gemm_layout;
  const std::int64_t total = (row_begin.back() - row_begin.front()) * k * n;
  const int threads = threads_for(total);
  std::vector<RowBlock> tasks;
  for (std::size_t g = 0; g < b.size(); ++g) {
    if (row_begin[g] == row_begin[g + 1]) continue;
    const Cut blocks(row_begin[g + 1] - row_begin[g], block_rows);
    for (std::int64_t i = 0; i < blocks.pieces; ++i) {
      const std::int64_t row = row_begin[g] + blocks.begin(i);
      const std::int64_t rows = blocks.size(i);
      // Columns are cut in quads of panels, the widest that a tile takes.
      const std::int64_t quads = divide_up(panels(n), 4);
      const Cut columns(quads, divide_up(quads, pieces_of(rows * k * n, total, threads, quads)));
      for (std::int64_t j = 0; j < columns.pieces; ++j) {
        const std::int64_t first = columns.begin(j) * 4;
        tasks.push_back({.x = x + row * k,
                         .rows = rows,
                         .b = b[g]->data(),
                         .k = k,
                         .n = n,
                         .panel_begin = first,
                         .panel_end = std::min(first + columns.size(j) * 4, panels(n)),
                         .y = y + row * n,
                         .accumulate = accumulate});
      }
    }
  }
  const GemmScratch scratch(threads, block_rows * max_depth);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    HWY_DYNAMIC_DISPATCH(run_row_block)(tasks[i], scratch.of(omp_get_thread_num()));
  }
}

}  // namespace switchyard
#endif
