// y[rows of group g] = x[rows of group g] B[g] (+ y): arguments, and the shape of the tiles. The kernel:
// grouped_gemm_kernel.cuh
#include "layers/ops/grouped_gemm_cuda.h"
#include "layers/ops/grouped_gemm_kernel.cuh"
#include "layers/ops/product_tile_bf16.cuh"
#include "layers/ops/product_tile_f32.cuh"
#include "layers/ops/tensor_cores_cuda.h"

#include <algorithm>
#include <limits>
#include <vector>

namespace switchyard::cuda {
namespace {

bool aligned(const void* memory) {
  return reinterpret_cast<std::uintptr_t>(memory) % 16 == 0;
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
         std::span<const PackedMatrix* const> b, Tensor y, bool accumulate, TensorCores cores) {
  const std::int64_t k = b.front()->k(), n = b.front()->n();
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() - 128;  // positions are stepped over
  require(x.rows() <= most && k <= most && n <= most, "grouped_gemm: x is {}, y is {}: more than {} rows or columns",
          x.shape().to_string(), y.shape().to_string(), most);
  GemmLaunch wanted{};
  wanted.device = &x.device();
  wanted.cores = cores;
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
  args.y_in_vectors = aligned(y.raw()) && n % 8 == 0;
  args.accumulate = accumulate;
  if (x.dtype() == DType::BF16 && is_wgmma(cores, x.device())) {
    launch_on_hopper(wanted);
  } else if (x.dtype() == DType::BF16) {
    wanted.b_by_lines ? launch_shape<Bf16Shapes, true>(wanted) : launch_shape<Bf16Shapes, false>(wanted);
  } else {
    wanted.b_by_lines ? launch_shape<F32Shapes, true>(wanted) : launch_shape<F32Shapes, false>(wanted);
  }
}

// In as many launches as the arguments' room asks for: one for up to 250 groups.
void run_parts(const Tensor& x, std::span<const std::int32_t> row_begin, const std::int32_t* row_begin_there,
               std::span<const PackedMatrix* const> b, const Tensor& y, bool accumulate, TensorCores cores) {
  constexpr std::size_t most = (KernelLists::room - 64) / (sizeof(void*) + sizeof(std::int32_t));
  for (std::size_t first = 0; first < b.size(); first += most) {
    const std::size_t count = std::min(most, b.size() - first);
    if (row_begin_there != nullptr) {
      run(x, {}, row_begin_there + first, b.subspan(first, count), y, accumulate, cores);
    } else {
      run(x, row_begin.subspan(first, count + 1), nullptr, b.subspan(first, count), y, accumulate, cores);
    }
  }
}

}  // namespace

void grouped_gemm(const Tensor& x, std::span<const std::int64_t> row_begin, std::span<const PackedMatrix* const> b,
                  Tensor y, bool accumulate, TensorCores cores) {
  require(row_begin.back() <= std::numeric_limits<std::int32_t>::max(), "grouped_gemm: {} rows are too many",
          row_begin.back());
  const std::vector<std::int32_t> narrow(row_begin.begin(), row_begin.end());
  run_parts(x, narrow, nullptr, b, y, accumulate, cores);
}

void grouped_gemm(const Tensor& x, const Tensor& row_begin, std::span<const PackedMatrix* const> b, Tensor y,
                  bool accumulate) {
  run_parts(x, {}, row_begin.i32(), b, y, accumulate, TensorCores::Best);
}

}  // namespace switchyard::cuda
