// The weight gradients of grouped_gemm_cuda.h by wgmma; compiled for compute capability 9.0 alone, with what is its
// own.
#include "layers/ops/product_tile_wgmma.cuh"
#include "layers/ops/weight_gradient_kernel.cuh"

namespace switchyard::cuda {

void launch_on_hopper(Device& device, const GradientArguments& args, std::int64_t groups, bool in_vectors,
                      TensorCores cores) {
  if (!in_vectors) return launch_tiles<WgmmaSmallTile, false>(device, args, groups);
  const std::int64_t row_tiles = groups * ((args.n + 127) / 128);
  switch (wgmma_tiles(cores, row_tiles, args.k, multiprocessors(device), /*few_rows=*/args.n <= 64)) {
    case TensorCores::WgmmaWide:
      return launch_tiles<WgmmaWideTile, true>(device, args, groups);
    case TensorCores::WgmmaLarge:
      return launch_tiles<WgmmaLargeTile, true>(device, args, groups);
    default:
      return launch_tiles<WgmmaSmallTile, true>(device, args, groups);
  }
}

}  // namespace switchyard::cuda
