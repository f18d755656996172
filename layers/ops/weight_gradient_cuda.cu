// dW[g] += dy[rows]^T x[rows] for the segments of each group, whose bounds may be known to the device alone. A block of
// threads has one tile of one weight: it forms the sum over a segment's rows in registers and adds it to the gradient
// from there, segment by segment.
#include "layers/ops/gradient_segments.h"
#include "layers/ops/grouped_gemm_cuda.h"
#include "layers/ops/kernel_lists.cuh"
#include "layers/ops/product_results.cuh"
#include "layers/ops/product_tile_bf16.cuh"
#include "layers/ops/product_tile_f32.cuh"
#include "layers/ops/tile_order.cuh"

#include <algorithm>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

namespace switchyard::cuda {
namespace {

struct GradientArguments {
  const void* dy;
  const void* x;
  int rows, n, k;
  int row_tiles, column_tiles;                // of one weight
  const std::int32_t* bounds;                 // [ranges + 1], ranges that follow each other; nullptr: see the lists
  unsigned range_begin_list, range_end_list;  // [ranges]
  unsigned segment_begin_list;                // [segments + 1], ranges
  unsigned group_begin_list;                  // [groups + 1], segments
  unsigned sum_list;                          // [groups]
  bool sums_in_pieces, goes_on;
  KernelLists lists;
};
static_assert(sizeof(GradientArguments) <= 4000);

// Positions that are the rows of the ranges of one segment, one after the other: what a sum consists of, and in which
// steps it is formed, does not hang on where its rows lie. What of the ranges lies outside of x is left out. Bounds are
// looked up when they are needed, which is seldom: registers are dear.
class SegmentPositions {
 public:
  __device__ SegmentPositions(const GradientArguments& args, int segment) : args_(args) {
    const auto* const begin = args.lists.at<std::int32_t>(args.segment_begin_list) + segment;
    next_ = begin[0];
    for (int range = next_; range < begin[1]; ++range) count += bounds(range).size;
  }
  int count = 0;

  __device__ __forceinline__ int row(int p) {
    if (p >= count) return -1;
    while (p >= until_) {
      const Bounds range = bounds(next_++);
      shift_ = range.begin - until_;
      until_ += range.size;
    }
    return p + shift_;
  }

 private:
  struct Bounds {
    int begin, size;
  };
  __device__ __forceinline__ Bounds bounds(int range) const {
    const bool follow = args_.bounds != nullptr;
    const int begin = (follow ? args_.bounds : args_.lists.at<std::int32_t>(args_.range_begin_list))[range];
    const int end = (follow ? args_.bounds + 1 : args_.lists.at<std::int32_t>(args_.range_end_list))[range];
    const int from = greater_of(begin, 0);
    return {from, greater_of(lesser_of(end, args_.rows) - from, 0)};
  }
  const GradientArguments& args_;
  int next_;       // the range after the one that the thread is in
  int until_ = 0;  // positions before it
  int shift_ = 0;  // from a position to its row
};

template <class Tile, bool Aligned>
__global__ void __launch_bounds__(Tile::threads, Tile::blocks_by_positions)
    weight_gradient_kernel(const __grid_constant__ GradientArguments args) {
  using T = typename Tile::Element;
  T* const shared = dynamic_shared<T>();
  const int tiles = args.row_tiles * args.column_tiles;
  const int group = static_cast<int>(blockIdx.x) / tiles;
  const TileNumber place =
      banded_tile<16>(static_cast<int>(blockIdx.x) - group * tiles, args.row_tiles, args.column_tiles);
  const int row = place.row * Tile::tile_rows, column = place.column * Tile::tile_columns;
  // The part of the sums that begins at `sums`.
  const auto part = [&](auto* sums) {
    return ResultPart<std::remove_pointer_t<decltype(sums)>>{sums + std::int64_t{row} * args.k + column, args.k,
                                                             args.n - row, args.k - column, args.sums_in_pieces};
  };
  const auto* const group_begin = args.lists.at<std::int32_t>(args.group_begin_list) + group;
  for (int s = group_begin[0]; s < group_begin[1]; ++s) {
    const SegmentPositions positions(args, s);
    if (positions.count == 0) continue;
    const auto* const sum = args.lists.at<DeviceSum>(args.sum_list) + group;
    Tile tile;
    if (args.goes_on) {
      start_from(tile, part(sum->plain));
    } else {
      start_from_zero(tile);
    }
    const Operand<T> a{static_cast<const T*>(args.dy) + row, args.n, args.n - row};
    const Operand<T> b{static_cast<const T*>(args.x) + column, args.k, args.k - column};
    tile.template multiply<false, false, Aligned>(shared, a, b, positions);
    if (args.goes_on) {
      store(tile, part(sum->plain));
    } else if (sum->exact != nullptr) {
      add_with(tile, part(sum->exact), [&](float partial) { return sum->fixed(partial); });
    } else {
      add_with(tile, part(sum->plain), [](float partial) { return partial; });
    }
    __syncthreads();  // before the next segment's rows take the place of this one's
  }
}

template <class Tile, bool Aligned>
void launch_tiles(Device& device, GradientArguments args, std::int64_t groups) {
  args.row_tiles = (args.n + Tile::tile_rows - 1) / Tile::tile_rows;
  args.column_tiles = (args.k + Tile::tile_columns - 1) / Tile::tile_columns;
  const std::int64_t tiles = groups * args.row_tiles * args.column_tiles;
  require(tiles <= std::numeric_limits<int>::max(), "weight_gradient: {} weights of [{}, {}] are too many", groups,
          args.n, args.k);
  launch(stream_of(device), weight_gradient_kernel<Tile, Aligned>, static_cast<unsigned>(tiles), Tile::threads,
         Tile::shared_bytes, args);
}

template <class Small, class Large>
void launch_shape(Device& device, const GradientArguments& args, std::int64_t groups, bool in_vectors) {
  const auto tiles = [](int size) { return std::int64_t{size + 127} / 128; };
  const bool small = args.n <= 64 || args.k <= 64 || groups * tiles(args.n) * tiles(args.k) < multiprocessors(device);
  if (!in_vectors) return launch_tiles<Small, false>(device, args, groups);
  if (small) return launch_tiles<Small, true>(device, args, groups);
  launch_tiles<Large, true>(device, args, groups);
}

bool aligned_to(const void* memory, std::uintptr_t bytes) {
  return reinterpret_cast<std::uintptr_t>(memory) % bytes == 0;
}

void run(const Tensor& dy, const Tensor& x, const GradientSegments& segments, std::span<const DeviceSum> sums,
         bool goes_on) {
  require(std::max({x.rows(), x.cols(), dy.cols()}) <= std::numeric_limits<std::int32_t>::max() - 128,
          "weight_gradient: dy is {} and x is {}: too many rows or columns", dy.shape().to_string(),
          x.shape().to_string());
  require(dy.dtype() == x.dtype(), "weight_gradient: dy is {} and x is {}", name_of(dy.dtype()), name_of(x.dtype()));
  GradientArguments args{};
  args.dy = dy.raw();
  args.x = x.raw();
  args.rows = static_cast<int>(x.rows());
  args.n = static_cast<int>(dy.cols());
  args.k = static_cast<int>(x.cols());
  args.bounds = segments.bounds;
  args.goes_on = goes_on;
  args.sums_in_pieces = args.k % 4 == 0;
  for (const DeviceSum& sum : sums) {
    const void* const memory = sum.exact != nullptr ? static_cast<const void*>(sum.exact) : sum.plain;
    args.sums_in_pieces = args.sums_in_pieces && aligned_to(memory, 32);
  }
  ListBuilder lists;
  args.sum_list = lists.add(sums);
  args.range_begin_list = lists.add(std::span(segments.range_begin));
  args.range_end_list = lists.add(std::span(segments.range_end));
  args.segment_begin_list = lists.add(std::span(segments.segment_begin));
  args.group_begin_list = lists.add(std::span(segments.group_begin));
  Device& device = x.device();
  args.lists = lists.lists(device);

  const auto groups = isize(sums.size());
  const bool in_vectors = aligned_to(args.dy, 16) && aligned_to(args.x, 16) && args.n % 8 == 0 && args.k % 8 == 0;
  if (x.dtype() == DType::BF16) {
    launch_shape<Bf16Tile<64, 64>, Bf16Tile<128, 128>>(device, args, groups, in_vectors);
  } else {
    launch_shape<F32Tile<64>, F32Tile<128>>(device, args, groups, in_vectors);
  }
}

// In as many launches as the arguments' room asks for: one for up to 80 groups of a few segments.
void run_parts(const Tensor& dy, const Tensor& x, const GradientSegments& segments, std::span<const DeviceSum> sums) {
  for (std::size_t first = 0, last = 0; first < sums.size(); first = last) {
    last = first + 1;
    while (last < sums.size() && segments.bytes_of_groups(first, last + 1, sizeof(DeviceSum)) <= KernelLists::room) {
      ++last;
    }
    run(dy, x, segments.of_groups(first, last), sums.subspan(first, last - first), /*goes_on=*/false);
  }
}

std::vector<DeviceSum> device_sums(std::span<const GradientSum* const> gradients) {
  std::vector<DeviceSum> sums;
  for (const GradientSum* gradient : gradients) sums.push_back(device_sum(*gradient));
  return sums;
}

}  // namespace

void grouped_weight_gradient(const Tensor& dy, const Tensor& x, std::span<const RowRange> ranges,
                             std::span<const std::int64_t> segment_begin, std::span<const std::int64_t> group_begin,
                             std::span<const GradientSum* const> gradients) {
  GradientSegments segments;
  for (const RowRange& range : ranges) {
    segments.range_begin.push_back(static_cast<std::int32_t>(range.begin));
    segments.range_end.push_back(static_cast<std::int32_t>(range.end));
  }
  set_segments(segments, segment_begin, group_begin, *gradients.front());
  run_parts(dy, x, segments, device_sums(gradients));
}

void grouped_weight_gradient(const Tensor& dy, const Tensor& x, const Tensor& segment_begin,
                             std::span<const std::int64_t> group_begin, std::span<const GradientSum* const> gradients) {
  GradientSegments segments;
  segments.bounds = segment_begin.i32();
  std::vector<std::int64_t> each(usize(segment_begin.size()));
  std::iota(each.begin(), each.end(), 0);
  set_segments(segments, each, group_begin, *gradients.front());
  run_parts(dy, x, segments, device_sums(gradients));
}

void continue_weight_gradient(const Tensor& dy, const Tensor& x, Tensor sum) {
  GradientSegments segments;
  segments.range_begin = {0};
  segments.range_end = {static_cast<std::int32_t>(x.rows())};
  segments.segment_begin = segments.group_begin = {0, 1};
  const DeviceSum sums[] = {{nullptr, sum.f32(), 0, nullptr}};
  run(dy, x, segments, sums, /*goes_on=*/true);
}

}  // namespace switchyard::cuda
