// The products of grouped_gemm_cuda.h by wgmma; compiled for compute capability 9.0 alone, with what is its own.
#include "layers/ops/grouped_gemm_kernel.cuh"
#include "layers/ops/product_tile_wgmma.cuh"

namespace switchyard::cuda {
namespace {

// Tiles of which a multiprocessor has room for one at a time: blocks take several by turns, and the copies of the next
// tile are under way while the sums of one are stored.
template <bool BLines>
__global__ void __launch_bounds__(WgmmaWideTile::threads, WgmmaWideTile::blocks)
    wide_gemm_kernel(const __grid_constant__ GemmArguments args) {
  using Tile = WgmmaWideTile;
  using Work = TileWork<Tile, BLines>;
  auto* const shared = dynamic_shared<bf16>();
  PlainPositions positions{args.k};
  int number = static_cast<int>(blockIdx.x);
  Work work(args, number);
  if (work.exists()) Tile::begin<true, BLines, true>(shared, work.a, work.b, positions);
  while (work.exists()) {
    number += static_cast<int>(gridDim.x);
    const Work next(args, number);
    Tile tile;
    work.begin_sums(args, tile);
    tile.template multiply_begun<true, BLines, true>(shared, work.a, work.b, positions);
    __syncthreads();  // all have read what the next tile's copies overwrite
    if (next.exists()) Tile::begin<true, BLines, true>(shared, next.a, next.b, positions);
    work.store_sums(args, tile);
    work = next;
  }
}

// A block has a multiprocessor to itself until it ends. Were there no more blocks than multiprocessors, an exchange on
// the stream beside would find no room before the product is done; and blocks that had to wait for one that runs
// already would begin when the others end, and double the time.
constexpr int rounds_of_blocks = 4;

template <bool BLines>
void launch_shape(const GemmLaunch& wanted) {
  using Small = WgmmaSmallTile;
  if (!wanted.aligned) return launch_tiles<Small, BLines, false>(wanted, wanted.most_row_tiles_of_64);
  switch (wgmma_tiles(wanted.cores, wanted.most_row_tiles_of_128, wanted.args.n, multiprocessors(*wanted.device),
                      /*few_rows=*/wanted.args.rows <= 64 * std::int64_t{wanted.args.groups})) {
    case TensorCores::WgmmaWide:
      return launch_kernel<WgmmaWideTile>(wide_gemm_kernel<BLines>, wanted, wanted.most_row_tiles_of_128,
                                          rounds_of_blocks);
    case TensorCores::WgmmaLarge:
      return launch_tiles<WgmmaLargeTile, BLines, true>(wanted, wanted.most_row_tiles_of_128);
    default:
      return launch_tiles<Small, BLines, true>(wanted, wanted.most_row_tiles_of_64);
  }
}

}  // namespace

void launch_on_hopper(const GemmLaunch& wanted) {
  wanted.b_by_lines ? launch_shape<true>(wanted) : launch_shape<false>(wanted);
}

}  // namespace switchyard::cuda
