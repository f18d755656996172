// y[rows of group g] = x[rows of group g] B[g] (+ y). Blocks of threads find their tiles from the groups' bounds, which
// may be known to the device alone: the grid is made for the most tiles that there can be. Tiles are handed out in an
// order in which those that run at a time share rows and weights in the second-level cache.
#include "layers/ops/grouped_gemm_cuda.h"
#include "layers/ops/kernel_lists.cuh"
#include "layers/ops/product_results.cuh"
#include "layers/ops/product_tile_bf16.cuh"
#include "layers/ops/product_tile_f32.cuh"
#include "layers/ops/tile_order.cuh"

#include <algorithm>
#include <limits>
#include <vector>

namespace switchyard::cuda {
namespace {

struct GemmArguments {
  const void* x;
  void* y;
  int rows, n, k;  // rows of x: bounds that lie outside are cut
  int groups;
  int column_tiles;
  const std::int32_t* row_begin;  // nullptr: it is in the lists
  unsigned row_begin_list, weight_list;
  bool y_in_bf16, y_in_pieces, accumulate;
  KernelLists lists;
};
static_assert(sizeof(GemmArguments) <= 4000);

struct TilePlace {
  int group;  // -1: there are no more tiles
  int row, rows, column;
};

// The place of tile number `tile`. All lanes of a warp come here together and look at 32 groups at a time.
template <class Tile>
__device__ __forceinline__ TilePlace find_tile(const GemmArguments& args, const std::int32_t* row_begin, int tile) {
  constexpr int height = Tile::tile_rows;
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  int before = 0;  // tiles of the groups before
  for (int base = 0; base < args.groups; base += warp_size) {
    int begin = 0, end = 0;
    if (base + lane < args.groups) {
      begin = greater_of(row_begin[base + lane], 0);
      end = lesser_of(row_begin[base + lane + 1], args.rows);
    }
    const int mine = begin < end ? (end - begin + height - 1) / height * args.column_tiles : 0;
    int upto = mine;
#pragma unroll
    for (int offset = 1; offset < warp_size; offset *= 2) {
      const int other = __shfl_up_sync(whole_warp, upto, static_cast<unsigned>(offset));
      if (lane >= offset) upto += other;
    }
    const unsigned votes = __ballot_sync(whole_warp, tile < before + upto);
    if (votes == 0) {
      before += __shfl_sync(whole_warp, upto, warp_size - 1);
      continue;
    }
    const int found = __ffs(static_cast<int>(votes)) - 1;
    begin = __shfl_sync(whole_warp, begin, found);
    end = __shfl_sync(whole_warp, end, found);
    const int number = tile - before - __shfl_sync(whole_warp, upto - mine, found);
    const TileNumber at = banded_tile<2048 / height>(number, (end - begin + height - 1) / height, args.column_tiles);
    const int row = begin + at.row * height;
    return {base + found, row, lesser_of(height, end - row), at.column * Tile::tile_columns};
  }
  return {-1, 0, 0, 0};
}

template <class Tile, bool BLines, bool Aligned>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks)
    grouped_gemm_kernel(const __grid_constant__ GemmArguments args) {
  using T = typename Tile::Element;
  T* const shared = dynamic_shared<T>();
  const std::int32_t* const row_begin =
      args.row_begin != nullptr ? args.row_begin : args.lists.at<std::int32_t>(args.row_begin_list);
  for (int number = static_cast<int>(blockIdx.x);; number += static_cast<int>(gridDim.x)) {
    const TilePlace place = find_tile<Tile>(args, row_begin, number);
    if (place.group < 0) return;
    const auto* const weight = static_cast<const T*>(args.lists.at<const void*>(args.weight_list)[place.group]);
    const int columns = lesser_of(Tile::tile_columns, args.n - place.column);
    const Operand<T> a{static_cast<const T*>(args.x) + std::int64_t{place.row} * args.k, args.k, place.rows};
    const Operand<T> b{weight + (BLines ? std::int64_t{place.column} * args.k : place.column), BLines ? args.k : args.n,
                       columns};
    // f(the part of y)
    const auto with_y = [&](const auto& f) {
      const std::int64_t first = std::int64_t{place.row} * args.n + place.column;
      if (sizeof(T) == sizeof(bf16) && args.y_in_bf16) {
        f(ResultPart<bf16>{static_cast<bf16*>(args.y) + first, args.n, place.rows, columns, args.y_in_pieces});
      } else {
        f(ResultPart<float>{static_cast<float*>(args.y) + first, args.n, place.rows, columns, args.y_in_pieces});
      }
    };
    Tile tile;
    if (args.accumulate) {
      with_y([&](const auto& y) { start_from(tile, y); });
    } else {
      start_from_zero(tile);
    }
    tile.template multiply<true, BLines, Aligned>(shared, a, b, PlainPositions{args.k});
    with_y([&](const auto& y) { store(tile, y); });
    __syncthreads();  // before the next tile's operands take the place of this one's
  }
}

bool aligned(const void* memory) {
  return reinterpret_cast<std::uintptr_t>(memory) % 16 == 0;
}

// What a launch needs beside its arguments.
struct GemmLaunch {
  Device* device;
  GemmArguments args;
  bool b_by_lines, aligned;
  std::int64_t most_row_tiles_of_128, most_row_tiles_of_64;
};

template <class Tile, bool BLines, bool Aligned>
void launch_tiles(const GemmLaunch& wanted, std::int64_t row_tiles) {
  GemmArguments args = wanted.args;
  args.column_tiles = (args.n + Tile::tile_columns - 1) / Tile::tile_columns;
  const std::int64_t tiles = row_tiles * args.column_tiles;
  require(tiles <= std::numeric_limits<int>::max() / 2, "grouped_gemm: {} rows and {} columns are too many", args.rows,
          args.n);
  // Blocks take their tiles by turns only where there are far more tiles than fit at a time: until then the device
  // hands them out as blocks end, which evens out what is uneven.
  const std::int64_t most = std::int64_t{multiprocessors(*wanted.device)} * Tile::blocks * 16;
  launch(stream_of(*wanted.device), grouped_gemm_kernel<Tile, BLines, Aligned>, blocks_for(tiles, 1, most),
         Tile::threads, Tile::shared_bytes, args);
}

struct Bf16Shapes {
  using Small = Bf16Tile<64, 64>;
  using Large = Bf16Tile<128, 128>;
  using Wide = Bf16Tile<128, 256>;
};
struct F32Shapes {
  using Small = F32Tile<64>;
  using Large = F32Tile<128>;
  using Wide = Large;
};

template <class Shapes, bool BLines>
void launch_shape(const GemmLaunch& wanted) {
  const std::int64_t row_tiles = wanted.most_row_tiles_of_128, column_tiles = (wanted.args.n + 127) / 128;
  const std::int64_t tiles = row_tiles * column_tiles, at_once = multiprocessors(*wanted.device);
  // Small tiles waste less where groups have few rows, and give more multiprocessors something to do.
  const bool small =
      wanted.args.n <= 64 || wanted.args.rows <= 64 * std::int64_t{wanted.args.groups} || tiles < at_once;
  // Wide ones ask the second-level cache for a quarter less. A multiprocessor has one at a time: there must be enough
  // of them that the last ones' number weighs little.
  const bool wide = column_tiles % 2 == 0 && tiles / 2 >= 2 * at_once;
  if (!wanted.aligned) return launch_tiles<typename Shapes::Small, BLines, false>(wanted, wanted.most_row_tiles_of_64);
  if (small) return launch_tiles<typename Shapes::Small, BLines, true>(wanted, wanted.most_row_tiles_of_64);
  if (wide) return launch_tiles<typename Shapes::Wide, BLines, true>(wanted, row_tiles);
  launch_tiles<typename Shapes::Large, BLines, true>(wanted, row_tiles);
}

void run(const Tensor& x, std::span<const std::int32_t> row_begin, const std::int32_t* row_begin_there,
         std::span<const PackedMatrix* const> b, Tensor y, bool accumulate) {
  const std::int64_t k = b.front()->k(), n = b.front()->n();
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() - 128;  // positions are stepped over
  require(x.rows() <= most && k <= most && n <= most, "grouped_gemm: x is {}, y is {}: more than {} rows or columns",
          x.shape().to_string(), y.shape().to_string(), most);
  GemmLaunch wanted{};
  wanted.device = &x.device();
  wanted.b_by_lines = b.front()->is_transposed();
  wanted.aligned = aligned(x.raw()) && k % 8 == 0 && (wanted.b_by_lines || n % 8 == 0);
  std::vector<const void*> weights;
  for (const PackedMatrix* one : b) {
    weights.push_back(one->on_device().raw());
    wanted.aligned = wanted.aligned && aligned(weights.back());
    require(one->is_transposed() == wanted.b_by_lines, "grouped_gemm: some weights are transposed, others not");
  }
  const auto row_tiles = [&](std::int64_t side) {
    if (row_begin.empty()) return x.rows() / side + isize(b.size());
    std::int64_t tiles = 0;
    for (std::size_t g = 0; g + 1 < row_begin.size(); ++g) tiles += (row_begin[g + 1] - row_begin[g] + side - 1) / side;
    return tiles;
  };
  wanted.most_row_tiles_of_128 = row_tiles(128);
  wanted.most_row_tiles_of_64 = row_tiles(64);

  GemmArguments& args = wanted.args;
  ListBuilder lists;
  args.weight_list = lists.add(std::span<const void* const>(weights));
  args.row_begin_list = lists.add(row_begin);
  args.lists = lists.lists(x.device());
  args.row_begin = row_begin_there;
  args.x = x.raw();
  args.y = y.raw();
  args.rows = static_cast<int>(x.rows());
  args.n = static_cast<int>(n);
  args.k = static_cast<int>(k);
  args.groups = static_cast<int>(b.size());
  args.y_in_bf16 = y.dtype() == DType::BF16;
  args.y_in_pieces = aligned(y.raw()) && n % 4 == 0;
  args.accumulate = accumulate;
  if (x.dtype() == DType::BF16) {
    wanted.b_by_lines ? launch_shape<Bf16Shapes, true>(wanted) : launch_shape<Bf16Shapes, false>(wanted);
  } else {
    wanted.b_by_lines ? launch_shape<F32Shapes, true>(wanted) : launch_shape<F32Shapes, false>(wanted);
  }
}

// In as many launches as the arguments' room asks for: one for up to 250 groups.
void run_parts(const Tensor& x, std::span<const std::int32_t> row_begin, const std::int32_t* row_begin_there,
               std::span<const PackedMatrix* const> b, const Tensor& y, bool accumulate) {
  constexpr std::size_t most = (KernelLists::room - 64) / (sizeof(void*) + sizeof(std::int32_t));
  for (std::size_t first = 0; first < b.size(); first += most) {
    const std::size_t count = std::min(most, b.size() - first);
    if (row_begin_there != nullptr) {
      run(x, {}, row_begin_there + first, b.subspan(first, count), y, accumulate);
    } else {
      run(x, row_begin.subspan(first, count + 1), nullptr, b.subspan(first, count), y, accumulate);
    }
  }
}

}  // namespace

void grouped_gemm(const Tensor& x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                  Tensor y, bool accumulate) {
  require(row_begin.back() <= std::numeric_limits<std::int32_t>::max(), "grouped_gemm: {} rows are too many",
          row_begin.back());
  const std::vector<std::int32_t> narrow(row_begin.begin(), row_begin.end());
  run_parts(x, narrow, nullptr, b, y, accumulate);
}

void grouped_gemm(const Tensor& x, const Tensor& row_begin, std::span<const PackedMatrix* const> b, Tensor y,
                  bool accumulate) {
  run_parts(x, {}, row_begin.i32(), b, y, accumulate);
}

}  // namespace switchyard::cuda
