// Weight gradients: dW = dy^T x over the rows of a segment. A block of dW's rows is packed from dy and stays in the
// second-level cache while the panels of x, packed once a task, stream past it. A finished tile goes from registers to
// the sum while it is in the first-level cache, and what it will be added to is fetched during the arithmetic.
#include "layers/ops/gemm_cpu.h"
#include "layers/ops/gemm_layout.h"

#include <algorithm>
#include <atomic>
#include <vector>

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/gemm_gradient_cpu.cpp"
#include <hwy/foreach_target.h>  // before whatever is compiled once a target
#include "comm/reduce/exact-inl.h"
#include "layers/ops/gemm_kernel-inl.h"
// clang-format on

#ifndef SWITCHYARD_GEMM_GRADIENT_BLOCK
#define SWITCHYARD_GEMM_GRADIENT_BLOCK
namespace switchyard {
struct GradientBlock {
  const float* dy;                         // [rows, n]
  const float* x;                          // [rows, k]
  std::int64_t n, k;                       // the weight's shape
  std::int64_t n_begin, n_end;             // rows of the weight
  std::int64_t panel_begin, panel_end;     // its columns, by panels
  std::span<const std::int64_t> segments;  // bounds of rows
  const GradientSum* gradient;
};
// The most columns and rows of a weight that one task works on: they bound the scratch memory to 8 MiB a thread.
inline constexpr std::int64_t most_columns = 1536;
inline constexpr std::int64_t most_rows = 768;
inline constexpr std::int64_t small_right = 96 << 10;  // floats
}  // namespace switchyard
#endif

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

// The rows of dy and x that are packed at a time: several short segments, one, or a piece of a long one.
struct Chunk {
  std::int64_t row, depth;
  std::span<const std::int64_t> bounds;  // of its segments; empty for a piece
  bool first, last;                      // of its segment
};

void add_tile(const GradientBlock& block, const float* tile, std::int64_t stride, std::int64_t row, std::int64_t rows,
              std::int64_t column, std::int64_t columns) {
  const GradientSum& sum = *block.gradient;
  const std::int64_t offset = row * block.k + column;
  if (sum.exact == nullptr) {
    for (std::int64_t r = 0; r < rows; ++r) {
      float* const to = sum.plain + offset + r * block.k;
      for (std::int64_t i = 0; i < columns; ++i) to[i] += tile[r * stride + i];
    }
    return;
  }
  bool all = true;
  for (std::int64_t r = 0; r < rows; ++r) {
    all &= exact_add_row(sum.exact + offset + r * block.k, tile + r * stride, columns, sum.limit);
  }
  if (!all) sum.non_finite->store(true, std::memory_order_relaxed);
}

struct Scratch {
  float* left;     // the packed rows of the block
  float* right;    // the packed columns of the task
  float* waiting;  // [n_end - n_begin][whole panels]: the chains of a segment that has more pieces to come
};

struct Tile {
  std::int64_t row, rows;     // of the weight
  std::int64_t panel, width;  // its columns, by panels
};

// One tile's partials over the chunk. `next` is the tile after it.
void run_tile(const GradientBlock& block, const Chunk& chunk, const Scratch& scratch, const float* left, const Tile& at,
              const Tile& next) {
  using namespace gemm_layout;
  HWY_ALIGN float finished[max_tile_rows * max_tile_panels * panel_width];
  const std::int64_t depth = chunk.depth;
  const std::int64_t column = at.panel * panel_width;
  const std::int64_t columns = std::min(at.width * panel_width, block.k - column);
  const TileKernel kernel = tile_kernel(static_cast<int>(at.rows), static_cast<int>(at.width));
  const std::int64_t element = block.gradient->exact != nullptr ? 8 : 4;
  const auto* sum = reinterpret_cast<const char*>(block.gradient->exact);
  if (sum == nullptr) sum = reinterpret_cast<const char*>(block.gradient->plain);
  TileProduct tile{.depth = depth,
                   .left = left,
                   .right = scratch.right + (at.panel - block.panel_begin) * depth * panel_width,
                   .panel_stride = depth * panel_width,
                   .c = finished,
                   .c_stride = at.width * panel_width,
                   .from_c = false,
                   .touch = sum + (next.row * block.k + next.panel * panel_width) * element,
                   .touch_stride = block.k * element,
                   .touch_lines = chunk.last ? static_cast<int>(at.width * panel_width * element / 64) : 0};
  if (chunk.bounds.empty()) {
    const std::int64_t stride = (block.panel_end - block.panel_begin) * panel_width;
    tile.c = scratch.waiting + (at.row - block.n_begin) * stride + (at.panel - block.panel_begin) * panel_width;
    tile.c_stride = stride;
    tile.from_c = !chunk.first;
    kernel(tile);
    if (chunk.last) add_tile(block, tile.c, tile.c_stride, at.row, at.rows, column, columns);
    return;
  }
  const float* const right = tile.right;
  for (std::size_t s = 0; s + 1 < chunk.bounds.size(); ++s) {
    const std::int64_t begin = chunk.bounds[s] - chunk.row;
    tile.depth = chunk.bounds[s + 1] - chunk.bounds[s];
    if (tile.depth == 0) continue;
    tile.left = left + begin * at.rows;
    tile.right = right + begin * panel_width;
    kernel(tile);
    add_tile(block, finished, tile.c_stride, at.row, at.rows, column, columns);
    tile.touch_lines = 0;
  }
}

// The rows of the weight from `first_row` on that `tiles` cuts.
void run_chunk_block(const GradientBlock& block, const Chunk& chunk, std::int64_t first_row,
                     const gemm_layout::Cut& tiles, const Scratch& scratch) {
  using namespace gemm_layout;
  pack_tiles(block.dy + chunk.row * block.n + first_row, block.n, tiles, chunk.depth, scratch.left);
  const std::int64_t widest = widest_tile(static_cast<int>(tiles.size(0)));
  const std::int64_t panels_here = block.panel_end - block.panel_begin;
  const auto width_at = [&](std::int64_t panel) {
    std::int64_t width = widest;
    while (panel + width > block.panel_end) width /= 2;
    return width;
  };
  const auto tile_at = [&](std::int64_t t, std::int64_t panel) {
    return Tile{first_row + tiles.begin(t), tiles.size(t), panel, width_at(panel)};
  };
  const auto left_of = [&](std::int64_t t) { return scratch.left + tiles.begin(t) * chunk.depth; };

  // Where there is little arithmetic to hide the sums behind, they are best walked along their rows, as they lie in
  // memory; the panels must then be small enough to stay in the second-level cache.
  if (panels_here * panel_width * chunk.depth <= small_right) {
    for (std::int64_t t = 0; t < tiles.pieces; ++t) {
      for (std::int64_t panel = block.panel_begin, next; panel < block.panel_end; panel = next) {
        const Tile at = tile_at(t, panel);
        next = panel + at.width;
        Tile after = at;
        after.panel = next;
        run_tile(block, chunk, scratch, left_of(t), at, after);
      }
    }
    return;
  }
  for (std::int64_t panel = block.panel_begin; panel < block.panel_end; panel += width_at(panel)) {
    for (std::int64_t t = 0; t < tiles.pieces; ++t) {
      const bool more = t + 1 < tiles.pieces;
      run_tile(block, chunk, scratch, left_of(t), tile_at(t, panel),
               more ? tile_at(t + 1, panel) : Tile{first_row, 0, panel + width_at(panel), 0});
    }
  }
}

void run_chunk(const GradientBlock& block, const Chunk& chunk, const Scratch& scratch) {
  using namespace gemm_layout;
  const std::int64_t column = block.panel_begin * panel_width;
  pack_panels(block.x + chunk.row * block.k + column, block.k,
              std::min(block.panel_end * panel_width, block.k) - column, chunk.depth, scratch.right);
  const Cut blocks(block.n_end - block.n_begin, block_rows);
  for (std::int64_t i = 0; i < blocks.pieces; ++i) {
    run_chunk_block(block, chunk, block.n_begin + blocks.begin(i), Cut(blocks.size(i), max_tile_rows), scratch);
  }
}

void run_gradient_block(const GradientBlock& block) {
  using namespace gemm_layout;
  const std::span<const std::int64_t> bounds = block.segments;
  std::int64_t longest = 0;
  for (std::size_t s = 0; s + 1 < bounds.size(); ++s) longest = std::max(longest, bounds[s + 1] - bounds[s]);

  constexpr std::int64_t left_size = block_rows * max_depth;
  const std::int64_t columns = (block.panel_end - block.panel_begin) * panel_width;
  const std::int64_t waiting_size = longest > max_depth ? (block.n_end - block.n_begin) * columns : 0;
  Scratch scratch{
      .left = gemm_scratch(left_size + columns * max_depth + waiting_size), .right = nullptr, .waiting = nullptr};
  scratch.right = scratch.left + left_size;
  scratch.waiting = scratch.right + columns * max_depth;

  std::size_t s = 0;
  while (s + 1 < bounds.size()) {
    const std::int64_t row = bounds[s];
    if (bounds[s + 1] - row > max_depth) {
      const Cut pieces(bounds[s + 1] - row, max_depth);
      for (std::int64_t i = 0; i < pieces.pieces; ++i) {
        run_chunk(block, {row + pieces.begin(i), pieces.size(i), {}, i == 0, i + 1 == pieces.pieces}, scratch);
      }
      ++s;
      continue;
    }
    std::size_t end = s + 1;
    while (end + 1 < bounds.size() && bounds[end + 1] - row <= max_depth) ++end;
    if (bounds[end] > row) {
      run_chunk(block, {row, bounds[end] - row, bounds.subspan(s, end - s + 1), true, true}, scratch);
    }
    s = end;
  }
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {
namespace {
HWY_EXPORT(run_gradient_block);
}  // namespace

void grouped_weight_gradient_cpu(const float* dy, const float* x, std::int64_t n, std::int64_t k,
                                 std::span<const std::int64_t> segment_begin, std::span<const std::int64_t> group_begin,
                                 std::span<const GradientSum* const> gradients) {
  using namespace gemm_layout;
  const auto bounds_of = [&](std::size_t g) {
    return segment_begin.subspan(usize(group_begin[g]), usize(group_begin[g + 1] - group_begin[g] + 1));
  };
  std::int64_t total = 0;
  for (std::size_t g = 0; g < gradients.size(); ++g) total += (bounds_of(g).back() - bounds_of(g).front()) * n * k;
  const int threads = threads_for(total);

  std::vector<GradientBlock> tasks;
  for (std::size_t g = 0; g < gradients.size(); ++g) {
    const std::span<const std::int64_t> bounds = bounds_of(g);
    const std::int64_t rows = bounds.back() - bounds.front();
    if (rows == 0) continue;
    // Columns are cut in quads of panels, the widest that a tile takes, and only where a task's scratch memory asks for
    // it: every cut of the one side has the other packed once more.
    const std::int64_t quads = divide_up(panels(k), 4);
    const Cut columns(quads, most_columns / (4 * panel_width));
    for (std::int64_t j = 0; j < columns.pieces; ++j) {
      const std::int64_t first = columns.begin(j) * 4;
      const std::int64_t end = std::min(first + columns.size(j) * 4, panels(k));
      const std::int64_t work = rows * n * (end - first) * panel_width;
      const std::int64_t pieces = std::max(pieces_of(work, total, threads, divide_up(n, 16)), divide_up(n, most_rows));
      const Cut blocks(n, divide_up(n, pieces));
      for (std::int64_t i = 0; i < blocks.pieces; ++i) {
        tasks.push_back({.dy = dy,
                         .x = x,
                         .n = n,
                         .k = k,
                         .n_begin = blocks.begin(i),
                         .n_end = blocks.begin(i) + blocks.size(i),
                         .panel_begin = first,
                         .panel_end = end,
                         .segments = bounds,
                         .gradient = gradients[g]});
      }
    }
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::size_t i = 0; i < tasks.size(); ++i) HWY_DYNAMIC_DISPATCH(run_gradient_block)(tasks[i]);
}

}  // namespace switchyard
#endif
