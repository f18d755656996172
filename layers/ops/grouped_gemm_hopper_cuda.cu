// The products of grouped_gemm_cuda.h by wgmma; compiled for compute capability 9.0 alone, with what is its own.
#include "layers/ops/grouped_gemm_kernel.cuh"
#include "layers/ops/product_tile_wgmma.cuh"

namespace switchyard::cuda {
namespace {

template <bool BLines>
void launch_shape(const GemmLaunch& wanted) {
  using Small = WgmmaSmallTile;
  if (!wanted.aligned) return launch_tiles<Small, BLines, false>(wanted, wanted.most_row_tiles_of_64);
  switch (wgmma_tiles(wanted.cores, wanted.most_row_tiles_of_128, wanted.args.n, multiprocessors(*wanted.device),
                      /*few_rows=*/wanted.args.rows <= 64 * std::int64_t{wanted.args.groups})) {
    case TensorCores::WgmmaWide:
      return launch_tiles<WgmmaWideTile, BLines, true>(wanted, wanted.most_row_tiles_of_128);
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
