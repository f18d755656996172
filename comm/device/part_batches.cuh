// Work on many arrays in few launches: a launch takes as many parts as its arguments have room for, and each block of
// threads works on one block of one part.
#pragma once

#include "comm/device/kernel.cuh"

#include <cstdint>
#include <span>

namespace switchyard::cuda {

// What a launch is given. A kernel takes it as `const __grid_constant__`, beside arguments of at most a few hundred
// bytes.
template <class Part>
struct PartBatch {
  static constexpr int most = 3400 / (sizeof(Part) + sizeof(unsigned));  // of the 4 KiB that all arguments may have
  Part part[most];
  unsigned end[most];  // blocks of the parts up to this one
  unsigned count = 0;

  unsigned blocks() const { return count == 0 ? 0 : end[count - 1]; }
};

// Which part a block of threads works on, and which of the part's blocks that is.
struct PartPlace {
  unsigned part, block;
};
template <class Part>
__device__ __forceinline__ PartPlace place_of(const PartBatch<Part>& batch) {
  unsigned part = 0;
  while (blockIdx.x >= batch.end[part]) ++part;
  return {part, blockIdx.x - (part == 0 ? 0 : batch.end[part - 1])};
}

// f(batch, blocks before it) for all parts; blocks_of(part): how many blocks one has. Those of none are left out.
template <class Part, class BlocksOf, class F>
void for_batches(std::span<const Part> parts, const BlocksOf& blocks_of, const F& f) {
  PartBatch<Part> batch;
  std::int64_t before = 0;
  const auto flush = [&] {
    if (batch.count > 0) f(batch, before);
    before += batch.blocks();
    batch.count = 0;
  };
  for (const Part& part : parts) {
    const unsigned blocks = blocks_of(part);
    if (blocks == 0) continue;
    if (batch.count == PartBatch<Part>::most) flush();
    const unsigned end = batch.blocks() + blocks;
    batch.part[batch.count] = part;
    batch.end[batch.count++] = end;
  }
  flush();
}

}  // namespace switchyard::cuda
