// Weight gradients: dW = dy^T x over the rows of a segment. The columns of x are packed once a task; a group of them
// stays in the second-level cache while the rows of dW, packed from dy, pass by strip after strip. The sums that a
// strip is added to are fetched during the arithmetic of the strip before it.
#include "layers/ops/gemm_cpu.h"
#include "layers/ops/gemm_layout.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include <omp.h>

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
  const float* dy;                      // [rows, n]
  const float* x;                       // [rows, k]
  std::int64_t n, k;                    // the weight's shape
  std::int64_t n_begin, n_end;          // rows of the weight
  std::int64_t panel_begin, panel_end;  // its columns, by panels
  // Rows are counted in the order of the ranges, from 0: range i begins with row range_begin[i].
  std::span<const RowRange> ranges;
  std::span<const std::int64_t> range_begin;  // [ranges + 1]
  std::span<const std::int64_t> segments;     // bounds of rows
  const GradientSum* gradient;
};
// A chunk is deeper than a forward product's block of k: what stays in the second-level cache is a group of panels.
inline constexpr std::int64_t gradient_depth = 1024;
inline constexpr std::int64_t right_in_cache = 160 << 10;  // floats
// Shorter chains leave nothing to fetch behind: memory is waited for in any case, and its own prefetching does better.
inline constexpr std::int64_t fetch_depth = 16;
// The most packed columns of one task, and the most rows of a weight whose chains wait: they bound the scratch memory
// to 8 MiB a thread.
inline constexpr std::int64_t most_right = 1 << 20;  // floats
inline constexpr std::int64_t most_rows = 768;
inline constexpr std::int64_t strip_rows = 14;  // of the tallest tile

inline std::int64_t longest_segment(std::span<const std::int64_t> bounds) {
  std::int64_t longest = 0;
  for (std::size_t s = 0; s + 1 < bounds.size(); ++s) longest = std::max(longest, bounds[s + 1] - bounds[s]);
  return longest;
}
// Floats of scratch memory: multiples of 16, so that each part begins with a cache line.
inline std::int64_t deepest(const GradientBlock& block) {
  return std::min(block.segments.back() - block.segments.front(), gradient_depth);
}
inline std::int64_t left_size(const GradientBlock& block) {
  return gemm_layout::divide_up(gemm_layout::block_rows * deepest(block), 16) * 16;
}
inline std::int64_t right_size(const GradientBlock& block) {
  return (block.panel_end - block.panel_begin) * gemm_layout::panel_width * deepest(block);
}
inline std::int64_t scratch_size(const GradientBlock& block) {
  const std::int64_t columns = (block.panel_end - block.panel_begin) * gemm_layout::panel_width;
  const bool waits = longest_segment(block.segments) > gradient_depth;
  return left_size(block) + right_size(block) + (strip_rows + (waits ? block.n_end - block.n_begin : 0)) * columns;
}
}  // namespace switchyard
#endif

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

static_assert(strip_rows >= max_tile_rows);

// The rows of dy and x that are packed at a time: several short segments, one, or a piece of a long one.
struct Chunk {
  std::int64_t row, depth;
  std::span<const std::int64_t> bounds;  // of its segments; empty for a piece
  bool first, last;                      // of its segment
};

void add_strip(const GradientBlock& block, const float* strip, std::int64_t stride, std::int64_t row, std::int64_t rows,
               std::int64_t column, std::int64_t columns) {
  const GradientSum& sum = *block.gradient;
  const std::int64_t offset = row * block.k + column;
  if (sum.exact == nullptr) {
    for (std::int64_t r = 0; r < rows; ++r) {
      float* const to = sum.plain + offset + r * block.k;
      for (std::int64_t i = 0; i < columns; ++i) to[i] += strip[r * stride + i];
    }
    return;
  }
  bool all = true;
  for (std::int64_t r = 0; r < rows; ++r) {
    all &= exact_add_row(sum.exact + offset + r * block.k, strip + r * stride, columns, sum.limit);
  }
  if (!all) sum.non_finite->store(true, std::memory_order_relaxed);
}

struct Scratch {
  float* left;     // the packed rows of the block
  float* right;    // the packed columns of the task
  float* strip;    // finished chains of one strip
  float* waiting;  // [n_end - n_begin][whole panels]: the chains of a segment that has more pieces to come
};

// As many rows of the weight as a tile has, by as many columns as have their panels in the second-level cache. What the
// chains of a strip are added to lies in long runs, which memory gives several times faster than a tile's short ones.
struct Strip {
  std::int64_t row, rows;
  std::int64_t panel, panel_end;
};

// The chains of the strip over `depth` rows, to c.
void multiply_strip(const GradientBlock& block, const Strip& strip, TileProduct tile, bool fetch_next) {
  using namespace gemm_layout;
  const std::int64_t widest = widest_tile(static_cast<int>(strip.rows));
  const std::int64_t element = block.gradient->exact != nullptr ? 8 : 4;
  const auto* sum = block.gradient->exact != nullptr ? reinterpret_cast<const char*>(block.gradient->exact)
                                                     : reinterpret_cast<const char*>(block.gradient->plain);
  sum += ((strip.row + strip.rows) * block.k + strip.panel * panel_width) * element;
  tile.touch_stride = block.k * element;
  std::int64_t width = widest;
  for (std::int64_t panel = strip.panel; panel < strip.panel_end; panel += width) {
    while (panel + width > strip.panel_end) width /= 2;
    tile.touch = sum;
    tile.touch_lines = fetch_next ? static_cast<int>(width * panel_width * element / 64) : 0;
    tile_kernel(static_cast<int>(strip.rows), static_cast<int>(width))(tile);
    tile.right += width * tile.panel_stride;
    tile.c += width * panel_width;
    sum += width * panel_width * element;
  }
}

// One strip's partials over the chunk.
void run_strip(const GradientBlock& block, const Chunk& chunk, const Scratch& scratch, const float* left,
               const Strip& strip) {
  using namespace gemm_layout;
  const std::int64_t depth = chunk.depth;
  const std::int64_t column = strip.panel * panel_width;
  const std::int64_t columns = std::min(strip.panel_end * panel_width, block.k) - column;
  const bool fetch_next = chunk.last && strip.row + strip.rows < block.n_end && depth >= fetch_depth;
  TileProduct tile{.depth = depth,
                   .left = left,
                   .right = scratch.right + (strip.panel - block.panel_begin) * depth * panel_width,
                   .panel_stride = depth * panel_width,
                   .c = scratch.strip,
                   .c_stride = (strip.panel_end - strip.panel) * panel_width,
                   .from_c = false};
  if (chunk.bounds.empty()) {
    tile.c_stride = (block.panel_end - block.panel_begin) * panel_width;
    tile.c = scratch.waiting + (strip.row - block.n_begin) * tile.c_stride + column - block.panel_begin * panel_width;
    tile.from_c = !chunk.first;
    multiply_strip(block, strip, tile, fetch_next);
    if (chunk.last) add_strip(block, tile.c, tile.c_stride, strip.row, strip.rows, column, columns);
    return;
  }
  const float* const right = tile.right;
  for (std::size_t s = 0; s + 1 < chunk.bounds.size(); ++s) {
    const std::int64_t begin = chunk.bounds[s] - chunk.row;
    tile.depth = chunk.bounds[s + 1] - chunk.bounds[s];
    if (tile.depth == 0) continue;
    tile.left = left + begin * strip.rows;
    tile.right = right + begin * panel_width;
    multiply_strip(block, strip, tile, fetch_next && s == 0);
    add_strip(block, tile.c, tile.c_stride, strip.row, strip.rows, column, columns);
  }
}

// use(first row in memory, how many, which place in the chunk the first one has), for each run of the chunk's rows.
template <class Use>
void for_runs(const GradientBlock& block, const Chunk& chunk, const Use& use) {
  const auto after = std::upper_bound(block.range_begin.begin(), block.range_begin.end(), chunk.row);
  for (std::size_t i = usize(after - block.range_begin.begin()) - 1; i < block.ranges.size(); ++i) {
    const std::int64_t begin = std::max(block.range_begin[i], chunk.row);
    const std::int64_t end = std::min(block.range_begin[i + 1], chunk.row + chunk.depth);
    if (begin >= chunk.row + chunk.depth) return;
    if (begin < end) use(block.ranges[i].begin + begin - block.range_begin[i], end - begin, begin - chunk.row);
  }
}

// The rows of the weight from `first_row` on that `tiles` cuts.
void run_chunk_block(const GradientBlock& block, const Chunk& chunk, std::int64_t first_row,
                     const gemm_layout::Cut& tiles, const Scratch& scratch) {
  using namespace gemm_layout;
  for_runs(block, chunk, [&](std::int64_t row, std::int64_t count, std::int64_t first) {
    pack_tiles(block.dy + row * block.n + first_row, block.n, tiles, count, first, chunk.depth, scratch.left);
  });
  const std::int64_t quads = divide_up(block.panel_end - block.panel_begin, 4);
  const Cut groups(quads, std::max<std::int64_t>(right_in_cache / (4 * panel_width * chunk.depth), 1));
  for (std::int64_t g = 0; g < groups.pieces; ++g) {
    const std::int64_t panel = block.panel_begin + groups.begin(g) * 4;
    const std::int64_t panel_end = std::min(panel + groups.size(g) * 4, block.panel_end);
    for (std::int64_t t = 0; t < tiles.pieces; ++t) {
      run_strip(block, chunk, scratch, scratch.left + tiles.begin(t) * chunk.depth,
                {first_row + tiles.begin(t), tiles.size(t), panel, panel_end});
    }
  }
}

void run_chunk(const GradientBlock& block, const Chunk& chunk, const Scratch& scratch) {
  using namespace gemm_layout;
  const std::int64_t column = block.panel_begin * panel_width;
  const std::int64_t columns = std::min(block.panel_end * panel_width, block.k) - column;
  for_runs(block, chunk, [&](std::int64_t row, std::int64_t count, std::int64_t first) {
    pack_panels(block.x + row * block.k + column, block.k, columns, count, first, chunk.depth, scratch.right);
  });
  const Cut blocks(block.n_end - block.n_begin, block_rows);
  for (std::int64_t i = 0; i < blocks.pieces; ++i) {
    run_chunk_block(block, chunk, block.n_begin + blocks.begin(i), Cut(blocks.size(i), max_tile_rows), scratch);
  }
}

void run_gradient_block(const GradientBlock& block, float* memory) {
  using namespace gemm_layout;
  const std::span<const std::int64_t> bounds = block.segments;
  const std::int64_t columns = (block.panel_end - block.panel_begin) * panel_width;
  Scratch scratch{};
  scratch.left = memory;
  scratch.right = scratch.left + left_size(block);
  scratch.strip = scratch.right + right_size(block);
  scratch.waiting = scratch.strip + strip_rows * columns;

  std::size_t s = 0;
  while (s + 1 < bounds.size()) {
    const std::int64_t row = bounds[s];
    if (bounds[s + 1] - row > gradient_depth) {
      const Cut pieces(bounds[s + 1] - row, gradient_depth);
      for (std::int64_t i = 0; i < pieces.pieces; ++i) {
        run_chunk(block, {row + pieces.begin(i), pieces.size(i), {}, i == 0, i + 1 == pieces.pieces}, scratch);
      }
      ++s;
      continue;
    }
    std::size_t end = s + 1;
    while (end + 1 < bounds.size() && bounds[end + 1] - row <= gradient_depth) ++end;
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
                                 std::span<const RowRange> ranges, std::span<const std::int64_t> segment_begin,
                                 std::span<const std::int64_t> group_begin,
                                 std::span<const GradientSum* const> gradients) {
  using namespace gemm_layout;
  struct GroupRows {
    std::span<const RowRange> ranges;
    std::vector<std::int64_t> range_begin, bounds;
  };
  std::vector<GroupRows> rows_of(gradients.size());
  std::int64_t total = 0;
  for (std::size_t g = 0; g < gradients.size(); ++g) {
    GroupRows& group = rows_of[g];
    const std::int64_t first = segment_begin[usize(group_begin[g])];
    group.ranges = ranges.subspan(usize(first), usize(segment_begin[usize(group_begin[g + 1])] - first));
    group.range_begin.assign(1, 0);
    for (const RowRange& range : group.ranges) group.range_begin.push_back(group.range_begin.back() + range.size());
    for (std::int64_t s = group_begin[g]; s <= group_begin[g + 1]; ++s) {
      group.bounds.push_back(group.range_begin[usize(segment_begin[usize(s)] - first)]);
    }
    total += group.bounds.back() * n * k;
  }
  const int threads = threads_for(total);

  std::vector<GradientBlock> tasks;
  for (std::size_t g = 0; g < gradients.size(); ++g) {
    const std::span<const std::int64_t> bounds = rows_of[g].bounds;
    const std::int64_t rows = bounds.back() - bounds.front();
    if (rows == 0) continue;
    // Columns are cut in quads of panels, the widest that a tile takes, and only where a task's scratch memory asks for
    // it: every cut of the one side has the other packed once more.
    const std::int64_t quads = divide_up(panels(k), 4);
    const std::int64_t depth = std::clamp<std::int64_t>(rows, 64, gradient_depth);
    const Cut columns(quads, most_right / (4 * panel_width * depth));
    for (std::int64_t j = 0; j < columns.pieces; ++j) {
      const std::int64_t first = columns.begin(j) * 4;
      const std::int64_t end = std::min(first + columns.size(j) * 4, panels(k));
      const std::int64_t work = rows * n * (end - first) * panel_width;
      const std::int64_t fewest = longest_segment(bounds) > gradient_depth ? divide_up(n, most_rows) : 1;
      const std::int64_t pieces = std::max(pieces_of(work, total, threads, divide_up(n, 16)), fewest);
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
                         .ranges = rows_of[g].ranges,
                         .range_begin = rows_of[g].range_begin,
                         .segments = bounds,
                         .gradient = gradients[g]});
      }
    }
  }
  std::int64_t size = 0;
  for (const GradientBlock& task : tasks) size = std::max(size, scratch_size(task));
  const GemmScratch scratch(threads, size);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    HWY_DYNAMIC_DISPATCH(run_gradient_block)(tasks[i], scratch.of(omp_get_thread_num()));
  }
}

}  // namespace switchyard
#endif
