// Backward attention on tensor cores. With P = exp(scale * q k - log_sum_exp) and m = the sum of dout * out over a row:
//   dv = P^T dout,   dS = P (dout v^T - m),   dk = scale * dS^T q,   dq = scale * dS k.
// dk and dv are made by blocks of keys that go over the queries which see them, head by head of their group, and dq by
// blocks of queries that go over the keys: the scores are made twice, and every sum has one owner and one order.
#include "layers/attention/flash_tile.cuh"

#include <cmath>

namespace switchyard::cuda {
namespace {

// A warp has 16 keys: P^T and dS^T of one product are, in its registers, the left side of the next, and never lie in
// shared memory. Wide heads are made in two parts of their columns, each by blocks of its own.
template <int WidthQK, int WidthV>
struct KeySizes {
  static constexpr int parts = WidthQK > 128 ? 2 : 1;
  static constexpr int warps = WidthQK > 128 ? 4 : 8;
  static constexpr int threads = warps * warp_size;
  static constexpr int keys = warps * 16;
  static constexpr int queries = WidthQK > 64 ? 32 : 64;
  static constexpr int columns_qk = WidthQK / parts;
  static constexpr int columns_v = WidthV / parts;
  static constexpr int key_tiles = keys * (pitch<WidthQK> + pitch<WidthV>);
  static constexpr int stage = queries * (pitch<WidthQK> + pitch<WidthV>)+2 * queries * 2;  // and two floats a query
  static constexpr std::size_t shared_bytes = sizeof(bf16) * (key_tiles + 2 * stage);
  static_assert(queries <= threads);
};

template <int WidthQK, int WidthV>
__global__ void __launch_bounds__(KeySizes<WidthQK, WidthV>::threads) flash_keys_kernel(const FlashArguments args) {
  using Sizes = KeySizes<WidthQK, WidthV>;
  constexpr int query_columns = Sizes::queries / 8;
  bf16* const k_tile = dynamic_shared<bf16>();
  bf16* const v_tile = k_tile + Sizes::keys * pitch<WidthQK>;
  bf16* const stages = k_tile + Sizes::key_tiles;

  // The first keys are seen by the most queries, and go first.
  const int first = static_cast<int>(blockIdx.x) * Sizes::keys;
  const int kv_head = static_cast<int>(blockIdx.y) / Sizes::parts;
  const int part = static_cast<int>(blockIdx.y) % Sizes::parts;
  const int sequence = static_cast<int>(blockIdx.z);
  const int group = args.heads / args.kv_heads;
  const int q_stride = args.heads * args.width_qk;
  const int out_stride = args.heads * args.width_v;
  const int k_stride = args.kv_heads * args.width_qk;
  const int v_stride = args.kv_heads * args.width_v;
  const std::int64_t base = std::int64_t{sequence} * args.positions;
  const std::int64_t k_offset = (base + first) * k_stride + kv_head * args.width_qk;
  const std::int64_t v_offset = (base + first) * v_stride + kv_head * args.width_v;
  const int rows = lesser(Sizes::keys, args.positions - first);

  // Step i: block first_block + i % blocks of the queries of head i / blocks of the group.
  const int first_block = first / Sizes::queries;
  const int blocks = (args.positions + Sizes::queries - 1) / Sizes::queries - first_block;
  const auto load_queries = [&](int step) {
    bf16* const to = stages + step % 2 * Sizes::stage;
    bf16* const dout_tile = to + Sizes::queries * pitch<WidthQK>;
    float* const of_queries = reinterpret_cast<float*>(dout_tile + Sizes::queries * pitch<WidthV>);
    const int head = kv_head * group + step / blocks;
    const int query = (first_block + step % blocks) * Sizes::queries;
    const int valid = args.positions - query;
    load_tile<Sizes::queries, WidthQK, Sizes::threads>(to, args.q + (base + query) * q_stride + head * args.width_qk,
                                                       q_stride, valid, args.width_qk);
    load_tile<Sizes::queries, WidthV, Sizes::threads>(
        dout_tile, args.dout + (base + query) * out_stride + head * args.width_v, out_stride, valid, args.width_v);
    const int i = static_cast<int>(threadIdx.x);
    if (i < Sizes::queries) {
      const std::int64_t at = (std::int64_t{sequence} * args.heads + head) * args.positions + query;
      const std::int64_t mine = i < valid ? at + i : at;
      copy_async<4>(of_queries + i, args.log_sum_exp + mine, i < valid);
      copy_async<4>(of_queries + Sizes::queries + i, args.mean + mine, i < valid);
    }
    commit_copies();
  };
  load_tile<Sizes::keys, WidthQK, Sizes::threads>(k_tile, args.k + k_offset, k_stride, rows, args.width_qk);
  load_tile<Sizes::keys, WidthV, Sizes::threads>(v_tile, args.v + v_offset, v_stride, rows, args.width_v);
  load_queries(0);

  const int lane = lane_of_thread();
  const int row = warp_of_thread() * 16;
  const int key = first + row;  // this warp's first
  const float scale_log2 = args.scale * log2_e;
  FragmentC dk[1][Sizes::columns_qk / 8];
  FragmentC dv[1][Sizes::columns_v / 8];
  set_zero(dk);
  set_zero(dv);
  const int steps = group * blocks;
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<0>();
    __syncthreads();
    if (step + 1 < steps) load_queries(step + 1);
    const int query = (first_block + step % blocks) * Sizes::queries;
    if (query + Sizes::queries - 1 < key) continue;  // before all of this warp's keys
    const bf16* const q_tile = stages + step % 2 * Sizes::stage;
    const bf16* const dout_tile = q_tile + Sizes::queries * pitch<WidthQK>;
    const float* const log_sum_exp = reinterpret_cast<const float*>(dout_tile + Sizes::queries * pitch<WidthV>);
    const float* const mean = log_sum_exp + Sizes::queries;

    FragmentC p[1][query_columns];
    multiply_rows<WidthQK>(p, k_tile, row, q_tile);
#pragma unroll
    for (int n = 0; n < query_columns; ++n) {
      const Vector<float, 2> level = Vector<float, 2>::load(log_sum_exp + n * 8 + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& weight = p[0][n].c[i];
        weight = fast_exp2(fmaf(weight, scale_log2, -level.at[i % 2] * log2_e));
        if (key + lane / 4 + i / 2 * 8 > query + n * 8 + lane % 4 * 2 + i % 2) weight = 0;
      }
    }
    add_product<WidthV>(dv, p, dout_tile, part * Sizes::columns_v);

    FragmentC ds[1][query_columns];
    multiply_rows<WidthV>(ds, v_tile, row, dout_tile);
#pragma unroll
    for (int n = 0; n < query_columns; ++n) {
      const Vector<float, 2> level = Vector<float, 2>::load(mean + n * 8 + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < 4; ++i) ds[0][n].c[i] = p[0][n].c[i] * (ds[0][n].c[i] - level.at[i % 2]);
    }
    add_product<WidthQK>(dk, ds, q_tile, part * Sizes::columns_qk);
  }

  // The rows of k and v that a warp has read are its own: its results take their place on the way to memory.
  __syncwarp();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    round_to_tile<WidthQK>(dk[0], half, args.scale, k_tile, row, 0);
    round_to_tile<WidthV>(dv[0], half, 1.0F, v_tile, row, 0);
  }
  __syncwarp();
  const int column_qk = part * Sizes::columns_qk;
  const int column_v = part * Sizes::columns_v;
  store_rows<16, WidthQK, Sizes::columns_qk>(k_tile + row * pitch<WidthQK>,
                                             args.dk + k_offset + std::int64_t{row} * k_stride + column_qk, k_stride,
                                             rows - row, args.width_qk - column_qk);
  store_rows<16, WidthV, Sizes::columns_v>(v_tile + row * pitch<WidthV>,
                                           args.dv + v_offset + std::int64_t{row} * v_stride + column_v, v_stride,
                                           rows - row, args.width_v - column_v);
}

template <int WidthQK, int WidthV>
struct QuerySizes {
  static constexpr int row_tiles = WidthQK <= 128 ? 2 : 1;
  static constexpr int warps = 4;
  static constexpr int threads = warps * warp_size;
  static constexpr int queries = warps * row_tiles * 16;
  static constexpr int keys = 32;
  static constexpr int query_tiles = queries * (pitch<WidthQK> + pitch<WidthV>);
  static constexpr int stage = keys * (pitch<WidthQK> + pitch<WidthV>);
  static constexpr std::size_t shared_bytes = sizeof(bf16) * (query_tiles + 2 * stage);
};

template <int WidthQK, int WidthV>
__global__ void __launch_bounds__(QuerySizes<WidthQK, WidthV>::threads)
    flash_queries_kernel(const FlashArguments args) {
  using Sizes = QuerySizes<WidthQK, WidthV>;
  constexpr int row_tiles = Sizes::row_tiles;
  bf16* const q_tile = dynamic_shared<bf16>();
  bf16* const dout_tile = q_tile + Sizes::queries * pitch<WidthQK>;
  bf16* const stages = q_tile + Sizes::query_tiles;

  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * Sizes::queries;
  const int head = static_cast<int>(blockIdx.y);
  const int sequence = static_cast<int>(blockIdx.z);
  const int kv_head = head / (args.heads / args.kv_heads);
  const int q_stride = args.heads * args.width_qk;
  const int out_stride = args.heads * args.width_v;
  const int k_stride = args.kv_heads * args.width_qk;
  const int v_stride = args.kv_heads * args.width_v;
  const std::int64_t base = std::int64_t{sequence} * args.positions;
  const std::int64_t q_offset = (base + first) * q_stride + head * args.width_qk;
  const bf16* const k = args.k + base * k_stride + kv_head * args.width_qk;
  const bf16* const v = args.v + base * v_stride + kv_head * args.width_v;
  const int rows = lesser(Sizes::queries, args.positions - first);

  const auto load_keys = [&](int block) {
    bf16* const to = stages + block % 2 * Sizes::stage;
    const int key = block * Sizes::keys;
    load_tile<Sizes::keys, WidthQK, Sizes::threads>(to, k + std::int64_t{key} * k_stride, k_stride,
                                                    args.positions - key, args.width_qk);
    load_tile<Sizes::keys, WidthV, Sizes::threads>(to + Sizes::keys * pitch<WidthQK>, v + std::int64_t{key} * v_stride,
                                                   v_stride, args.positions - key, args.width_v);
    commit_copies();
  };
  load_tile<Sizes::queries, WidthQK, Sizes::threads>(q_tile, args.q + q_offset, q_stride, rows, args.width_qk);
  load_tile<Sizes::queries, WidthV, Sizes::threads>(
      dout_tile, args.dout + (base + first) * out_stride + head * args.width_v, out_stride, rows, args.width_v);
  load_keys(0);

  const int lane = lane_of_thread();
  const int row = warp_of_thread() * row_tiles * 16;
  const int query = first + row;  // this warp's first
  const float scale_log2 = args.scale * log2_e;
  float log_sum_exp[row_tiles][2];  // in units of log2; rows behind the sequence's end are zeros times zeros
  float mean[row_tiles][2];
#pragma unroll
  for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int position = query + m * 16 + half * 8 + lane / 4;
      const bool valid = position < args.positions;
      const std::int64_t at = (std::int64_t{sequence} * args.heads + head) * args.positions + position;
      log_sum_exp[m][half] = valid ? args.log_sum_exp[at] * log2_e : 0.0F;
      mean[m][half] = valid ? args.mean[at] : 0.0F;
    }
  }
  FragmentC dq[row_tiles][WidthQK / 8];
  set_zero(dq);
  const int blocks = (first + rows + Sizes::keys - 1) / Sizes::keys;
  for (int block = 0; block < blocks; ++block) {
    wait_for_copies<0>();
    __syncthreads();
    if (block + 1 < blocks) load_keys(block + 1);
    const int key = block * Sizes::keys;
    if (key > query + row_tiles * 16 - 1) continue;  // behind all of this warp's queries
    const bf16* const k_tile = stages + block % 2 * Sizes::stage;
    const bf16* const v_tile = k_tile + Sizes::keys * pitch<WidthQK>;
    FragmentC s[row_tiles][Sizes::keys / 8];
    FragmentC dp[row_tiles][Sizes::keys / 8];
    multiply_rows<WidthQK>(s, q_tile, row, k_tile);
    multiply_rows<WidthV>(dp, dout_tile, row, v_tile);
#pragma unroll
    for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
      for (int n = 0; n < Sizes::keys / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& slope = s[m][n].c[i];
          const float weight = fast_exp2(fmaf(slope, scale_log2, -log_sum_exp[m][i / 2]));
          slope = weight * (dp[m][n].c[i] - mean[m][i / 2]);
          if (key + n * 8 + lane % 4 * 2 + i % 2 > query + m * 16 + lane / 4 + i / 2 * 8) slope = 0;
        }
      }
    }
    add_product<WidthQK>(dq, s, k_tile, 0);
  }

  __syncwarp();
#pragma unroll
  for (int m = 0; m < row_tiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) round_to_tile<WidthQK>(dq[m], half, args.scale, q_tile, row + m * 16, 0);
  }
  __syncwarp();
  store_rows<row_tiles * 16, WidthQK, WidthQK>(q_tile + row * pitch<WidthQK>,
                                               args.dq + q_offset + std::int64_t{row} * q_stride, q_stride, rows - row,
                                               args.width_qk);
}

template <int WidthQK, int WidthV>
void backward(const FlashArguments& args, cudaStream_t stream) {
  using Keys = KeySizes<WidthQK, WidthV>;
  using Queries = QuerySizes<WidthQK, WidthV>;
  const unsigned sequences = static_cast<unsigned>(args.sequences);
  launch(stream, flash_keys_kernel<WidthQK, WidthV>,
         dim3(blocks_for(args.positions, Keys::keys), static_cast<unsigned>(args.kv_heads * Keys::parts), sequences),
         dim3(Keys::threads), Keys::shared_bytes, args);
  launch(stream, flash_queries_kernel<WidthQK, WidthV>,
         dim3(blocks_for(args.positions, Queries::queries), static_cast<unsigned>(args.heads), sequences),
         dim3(Queries::threads), Queries::shared_bytes, args);
}

}  // namespace

void flash_backward(const FlashArguments& args, cudaStream_t stream) {
  with_flash_widths(args, [&]<int WidthQK, int WidthV>() { backward<WidthQK, WidthV>(args, stream); });
}

}  // namespace switchyard::cuda
