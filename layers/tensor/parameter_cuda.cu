#include "comm/device/part_batches.cuh"
#include "layers/tensor/gradient_sum.cuh"
#include "layers/tensor/parameter_cuda.h"

#include <vector>

namespace switchyard::cuda {
namespace {

constexpr int threads = 256;

__global__ void __launch_bounds__(threads)
    add_kernel(DeviceSum sum, const float* __restrict__ partial, std::int64_t n) {
  const std::int64_t step = std::int64_t{gridDim.x} * threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x; i < n; i += step) sum.add(i, partial[i]);
}

// A sum begins at a boundary of 16 bytes, as all memory of a device does.
struct Zeroed {
  unsigned* words;
  std::int64_t count;
};
constexpr int vectors = 4;  // of 16 bytes, that a thread writes
constexpr std::int64_t words_of_block = std::int64_t{vectors} * threads * vector_size<unsigned>;

__global__ void __launch_bounds__(threads) zero_kernel(const __grid_constant__ PartBatch<Zeroed> batch) {
  constexpr int width = vector_size<unsigned>;
  const auto [number, block] = place_of(batch);
  const Zeroed part = batch.part[number];
  for (int v = 0; v < vectors; ++v) {
    const std::int64_t begin = block * words_of_block + (std::int64_t{v} * threads + threadIdx.x) * width;
    if (begin + width <= part.count) {
      Vector<unsigned>{}.store(part.words + begin);
    } else {
      for (std::int64_t i = begin; i < part.count; ++i) part.words[i] = 0;
    }
  }
}

}  // namespace

void add_partial(const GradientSum& sum, const float* partial, std::int64_t n) {
  const unsigned blocks = blocks_for(n, threads, std::int64_t{multiprocessors(*sum.device)} * 32);
  launch(stream_of(*sum.device), add_kernel, blocks, threads, 0, device_sum(sum), partial, n);
}

void zero_gradients(Device& device, std::span<const GradientSum> sums) {
  std::vector<Zeroed> parts;
  parts.reserve(sums.size());
  for (const GradientSum& sum : sums) {
    if (sum.exact != nullptr) {
      parts.push_back({reinterpret_cast<unsigned*>(sum.exact), 2 * sum.size});
    } else {
      parts.push_back({reinterpret_cast<unsigned*>(sum.plain), sum.size});
    }
  }
  for_batches(
      std::span<const Zeroed>(parts), [](const Zeroed& part) { return blocks_for(part.count, words_of_block); },
      [&](const PartBatch<Zeroed>& batch, std::int64_t) {
        launch(stream_of(device), zero_kernel, batch.blocks(), threads, 0, batch);
      });
}

}  // namespace switchyard::cuda
