// dW[g] += dy[rows]^T x[rows] for the segments of each group, whose bounds may be known to the device alone: arguments,
// and the shape of the tiles. The kernel: weight_gradient_kernel.cuh
#include "layers/ops/gradient_segments.h"
#include "layers/ops/grouped_gemm_cuda.h"
#include "layers/ops/product_tile_bf16.cuh"
#include "layers/ops/product_tile_f32.cuh"
#include "layers/ops/tensor_cores_cuda.h"
#include "layers/ops/weight_gradient_kernel.cuh"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

namespace switchyard::cuda {
namespace {

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
         bool goes_on, TensorCores cores) {
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
  if (x.dtype() == DType::BF16 && is_wgmma(cores, device)) {
    launch_on_hopper(device, args, groups, in_vectors, cores);
  } else if (x.dtype() == DType::BF16) {
    launch_shape<Bf16Tile<64, 64>, Bf16Tile<128, 128>>(device, args, groups, in_vectors);
  } else {
    launch_shape<F32Tile<64>, F32Tile<128>>(device, args, groups, in_vectors);
  }
}

// In as many launches as the arguments' room asks for: one for up to 80 groups of a few segments.
void run_parts(const Tensor& dy, const Tensor& x, const GradientSegments& segments, std::span<const DeviceSum> sums,
               TensorCores cores) {
  for (std::size_t first = 0, last = 0; first < sums.size(); first = last) {
    last = first + 1;
    while (last < sums.size() && segments.bytes_of_groups(first, last + 1, sizeof(DeviceSum)) <= KernelLists::room) {
      ++last;
    }
    run(dy, x, segments.of_groups(first, last), sums.subspan(first, last - first), /*goes_on=*/false, cores);
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
                             std::span<const GradientSum* const> gradients, TensorCores cores) {
  GradientSegments segments;
  for (const RowRange& range : ranges) {
    segments.range_begin.push_back(static_cast<std::int32_t>(range.begin));
    segments.range_end.push_back(static_cast<std::int32_t>(range.end));
  }
  set_segments(segments, segment_begin, group_begin, *gradients.front());
  run_parts(dy, x, segments, device_sums(gradients), cores);
}

void grouped_weight_gradient(const Tensor& dy, const Tensor& x, const Tensor& segment_begin,
                             std::span<const std::int64_t> group_begin, std::span<const GradientSum* const> gradients) {
  GradientSegments segments;
  segments.bounds = segment_begin.i32();
  std::vector<std::int64_t> each(usize(segment_begin.size()));
  std::iota(each.begin(), each.end(), 0);
  set_segments(segments, each, group_begin, *gradients.front());
  run_parts(dy, x, segments, device_sums(gradients), TensorCores::Best);
}

void continue_weight_gradient(const Tensor& dy, const Tensor& x, Tensor sum) {
  GradientSegments segments;
  segments.range_begin = {0};
  segments.range_end = {static_cast<std::int32_t>(x.rows())};
  segments.segment_begin = segments.group_begin = {0, 1};
  const DeviceSum sums[] = {{nullptr, sum.f32(), 0, nullptr}};
  run(dy, x, segments, sums, /*goes_on=*/true, TensorCores::Best);
}

}  // namespace switchyard::cuda
