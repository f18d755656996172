// wgmma and the asynchronous proxy through which it reads shared memory, emulated as strictly as the PTX ISA lets a GPU
// be lax:
//   - Products are made when they are waited for and not before, from what shared memory holds then. Until then the
//   sums
//     hold 0xff, a NaN, and whoever writes to them is told.
//   - What a thread has written to shared memory, by itself or by cp.async, wgmma may read after the thread's
//     fence.proxy.async, which must come after the copy was waited for. Known are cp.async's writes and those that
//     wrote_shared() is told of.
//   - Sums that were touched ask for a wgmma.fence. All warps of a warpgroup must give the same products.
//   - Descriptors must be of the swizzle of 128 bytes, and what they name must lie where it can, inside the block's
//     dynamic shared memory.
// CUDA_EMULATION_FAULT=wgmma in the environment makes it read without the permutation: products are then wrong, as with
// hardware that understands descriptors otherwise.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

namespace cuda_emulation {

// Where something lies in shared memory, as descriptors have it: 18 bits.
std::uint32_t shared_address(const void* in_shared);

void wrote_shared(const void* to, std::size_t bytes);
void fence_async_proxy();
// cp.async: the place is being written until the thread has waited for it.
void begins_to_write_shared(const void* to, std::size_t bytes);

struct WgmmaOperand {
  std::uint64_t descriptor;
  bool by_positions;  // MN-major
};
// c[n / 2] are this thread's sums of a m64nNk16; a and b as the PTX ISA's tables have them.
struct Wgmma {
  float* c;
  unsigned n;
  WgmmaOperand a, b;
};
void wgmma_fence();
void wgmma(const Wgmma& product, const std::source_location& place);
void wgmma_commit();
void wgmma_wait(unsigned pending, const std::source_location& place = std::source_location::current());

}  // namespace cuda_emulation
