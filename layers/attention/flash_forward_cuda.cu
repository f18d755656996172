// Forward attention on tensor cores (FlashAttention-2, Dao 2023): a block of threads takes a block of queries of one
// head over all the keys that it sees, with the running softmax in registers. Keys and values come in blocks through
// two stages of shared memory, so that one block travels while the one before is worked on.
#include "layers/attention/flash_tile.cuh"

#include <cmath>

namespace switchyard::cuda {
namespace {

// Each warp works on its own queries. Two row tiles a warp halve what it reads of keys and values from shared memory;
// wide heads leave registers for one.
template <int WidthQK, int WidthV>
struct ForwardSizes {
  static constexpr int row_tiles = WidthV <= 128 ? 2 : 1;
  static constexpr int warps = 8 / row_tiles;
  static constexpr int threads = warps * warp_size;
  static constexpr int queries = 128;
  static constexpr int keys = WidthV <= 128 ? 64 : 32;
  static constexpr int stage = keys * (pitch<WidthQK> + pitch<WidthV>);
  static constexpr std::size_t shared_bytes = sizeof(bf16) * (queries * pitch<WidthQK> + 2 * stage);
};

// Scores of keys that come after their query become -infinity.
template <int M, int N>
__device__ __forceinline__ void mask_scores(FragmentC (&s)[M][N], int query, int key) {
  const int lane = lane_of_thread();
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = query + m * 16 + i / 2 * 8 + lane / 4;
        const int column = key + n * 8 + lane % 4 * 2 + i % 2;
        if (column > row) s[m][n].c[i] = -INFINITY;
      }
    }
  }
}

// Of this lane's two rows of a row tile: the highest score so far, and the sum over this lane's columns of
// exp(scale * (score - highest)).
struct RunningRows {
  float highest[2];
  float sum[2];
};

// Turns scores into weights and brings `rows` up to date; the sums of weighted values are rescaled.
template <int N, int NV>
__device__ __forceinline__ void running_softmax(FragmentC (&s)[N], FragmentC (&sums)[NV], RunningRows& rows,
                                                float scale_log2) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float highest = rows.highest[half];
#pragma unroll
    for (int n = 0; n < N; ++n) highest = fmaxf(highest, fmaxf(s[n].c[2 * half], s[n].c[2 * half + 1]));
    highest = fmaxf(highest, __shfl_xor_sync(whole_warp, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(whole_warp, highest, 2));
    const float shift = highest * scale_log2;
    const float factor = fast_exp2(fmaf(rows.highest[half], scale_log2, -shift));
    rows.highest[half] = highest;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        s[n].c[i] = fast_exp2(fmaf(s[n].c[i], scale_log2, -shift));
        sum += s[n].c[i];
      }
    }
    rows.sum[half] = fmaf(rows.sum[half], factor, sum);
#pragma unroll
    for (int n = 0; n < NV; ++n) {
      sums[n].c[2 * half] *= factor;
      sums[n].c[2 * half + 1] *= factor;
    }
  }
}

template <int WidthQK, int WidthV>
__global__ void __launch_bounds__(ForwardSizes<WidthQK, WidthV>::threads)
    flash_forward_kernel(const FlashArguments args) {
  using Sizes = ForwardSizes<WidthQK, WidthV>;
  constexpr int row_tiles = Sizes::row_tiles;
  bf16* const q_tile = dynamic_shared<bf16>();
  bf16* const stages = q_tile + Sizes::queries * pitch<WidthQK>;

  // The last queries see the most keys: they go first.
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * Sizes::queries;
  const int head = static_cast<int>(blockIdx.y);
  const int sequence = static_cast<int>(blockIdx.z);
  const int kv_head = head / (args.heads / args.kv_heads);
  const int rows = lesser(Sizes::queries, args.positions - first);
  const int q_stride = args.heads * args.width_qk;
  const int k_stride = args.kv_heads * args.width_qk;
  const int v_stride = args.kv_heads * args.width_v;
  const std::int64_t base = std::int64_t{sequence} * args.positions;
  const bf16* const q = args.q + (base + first) * q_stride + std::int64_t{head} * args.width_qk;
  const bf16* const k = args.k + base * k_stride + std::int64_t{kv_head} * args.width_qk;
  const bf16* const v = args.v + base * v_stride + std::int64_t{kv_head} * args.width_v;

  const auto load_keys = [&](int block) {
    bf16* const to = stages + block % 2 * Sizes::stage;
    const int key = block * Sizes::keys;
    load_tile<Sizes::keys, WidthQK, Sizes::threads>(to, k + std::int64_t{key} * k_stride, k_stride,
                                                    args.positions - key, args.width_qk);
    load_tile<Sizes::keys, WidthV, Sizes::threads>(to + Sizes::keys * pitch<WidthQK>, v + std::int64_t{key} * v_stride,
                                                   v_stride, args.positions - key, args.width_v);
    commit_copies();
  };
  load_tile<Sizes::queries, WidthQK, Sizes::threads>(q_tile, q, q_stride, rows, args.width_qk);
  load_keys(0);

  const int row = warp_of_thread() * row_tiles * 16;  // this warp's first, in the tile
  const float scale_log2 = args.scale * log2_e;
  FragmentC sums[row_tiles][WidthV / 8];
  set_zero(sums);
  RunningRows running[row_tiles];
#pragma unroll
  for (int m = 0; m < row_tiles; ++m) running[m] = {{-INFINITY, -INFINITY}, {0, 0}};

  const int blocks = (first + rows + Sizes::keys - 1) / Sizes::keys;
  for (int block = 0; block < blocks; ++block) {
    wait_for_copies<0>();
    __syncthreads();
    if (block + 1 < blocks) load_keys(block + 1);
    const int key = block * Sizes::keys;
    if (key > first + row + row_tiles * 16 - 1) continue;  // behind all of this warp's queries
    const bf16* const k_tile = stages + block % 2 * Sizes::stage;
    const bf16* const v_tile = k_tile + Sizes::keys * pitch<WidthQK>;
    FragmentC scores[row_tiles][Sizes::keys / 8];
    multiply_rows<WidthQK>(scores, q_tile, row, k_tile);
    if (key + Sizes::keys - 1 > first + row) mask_scores(scores, first + row, key);
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) running_softmax(scores[m], sums[m], running[m], scale_log2);
    add_product<WidthV>(sums, scores, v_tile, 0);
  }

  // The rows of q that a warp has read are its own: its results take their place on the way to memory.
  static_assert(WidthV <= WidthQK);
  const int lane = lane_of_thread();
  __syncwarp();
#pragma unroll
  for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = running[m].sum[half];
      sum += __shfl_xor_sync(whole_warp, sum, 1);
      sum += __shfl_xor_sync(whole_warp, sum, 2);
      round_to_tile<WidthQK>(sums[m], half, 1 / sum, q_tile, row + m * 16, 0);
      const int position = first + row + m * 16 + half * 8 + lane / 4;
      if (lane % 4 == 0 && position < args.positions) {
        args.log_sum_exp[(std::int64_t{sequence} * args.heads + head) * args.positions + position] =
            running[m].highest[half] * args.scale + logf(sum);
      }
    }
  }
  __syncwarp();
  const int out_stride = args.heads * args.width_v;
  store_rows<row_tiles * 16, WidthQK, WidthV>(
      q_tile + row * pitch<WidthQK>, args.out + (base + first + row) * out_stride + std::int64_t{head} * args.width_v,
      out_stride, rows - row, args.width_v);
}

template <int WidthQK, int WidthV>
void forward(const FlashArguments& args, cudaStream_t stream) {
  using Sizes = ForwardSizes<WidthQK, WidthV>;
  const dim3 grid(blocks_for(args.positions, Sizes::queries), static_cast<unsigned>(args.heads),
                  static_cast<unsigned>(args.sequences));
  launch(stream, flash_forward_kernel<WidthQK, WidthV>, grid, dim3(Sizes::threads), Sizes::shared_bytes, args);
}

}  // namespace

void flash_forward(const FlashArguments& args, cudaStream_t stream) {
  with_flash_widths(args, [&]<int WidthQK, int WidthV>() { forward<WidthQK, WidthV>(args, stream); });
}

}  // namespace switchyard::cuda
