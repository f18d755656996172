// Runs CUDA kernels on the CPU, for tests where no GPU is at hand: what a kernel computes and where it synchronises is
// seen, its speed is not.
//
// A launch runs one block after the other; the threads of a block are fibers that run until they synchronise. Some
// launches take their threads forward, others backward, so that a missing barrier shows. Device memory cannot be
// touched outside kernels and copies (unless CUDA_EMULATION_OPEN is set), lies between guard pages and begins as 0xff.
// The main stream works at once, or, where CUDA_EMULATION_LAZY is set, as late as it may, as all other streams do. Not
// seen: what static __shared__ arrays hold before they are written (they are not poisoned), and whether warps would run
// at the same time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>

struct dim3;
struct CUstream_st;

namespace cuda_emulation {

// Runs body() once for each thread of the grid, with threadIdx and its like set, in the stream's order. Where threads
// of a block disagree about a barrier (or lanes of a warp about an exchange between them) it throws std::logic_error,
// which names the kernel and both places. A grid, block or shared memory that no GPU takes sets cudaGetLastError().
void run(CUstream_st* stream, const std::string& name, const dim3& grid, const dim3& block, std::size_t shared_bytes,
         std::function<void()> body);
// The same on the default stream.
inline void run(const std::string& name, const dim3& grid, const dim3& block, std::size_t shared_bytes,
                std::function<void()> body) {
  run(nullptr, name, grid, block, shared_bytes, std::move(body));
}

// From here on: inside kernels only.

// The block's dynamic shared memory; a guard page lies behind it.
void* dynamic_shared();
std::size_t dynamic_shared_bytes();
unsigned thread_number();  // in the block
unsigned threads_of_block();
std::uint64_t block_serial();  // no two blocks of a process have the same

// All threads of the block, or all lanes of the warp that have not returned, come here before one goes on.
void block_barrier(const std::source_location& place);
inline constexpr unsigned warp_size = 32;
inline constexpr std::size_t gather_bytes = 256;
// What every lane of the warp gave: copies, which stay until the warp's next gather but one. nullptr for lanes that do
// not exist or have returned.
using WarpPointers = std::array<const void*, warp_size>;
const WarpPointers& warp_gather(const void* mine, std::size_t bytes,
                                const std::source_location& place = std::source_location::current());
template <class T>
const WarpPointers& warp_gather(const T* mine, const std::source_location& place = std::source_location::current()) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= gather_bytes);
  return warp_gather(mine, sizeof(T), place);
}
// All lanes come here, and what one has written before is there for the others after it: an exchange orders nothing.
void warp_barrier(const std::source_location& place);
unsigned lane();  // of the running thread in its warp

template <class T>
T value_of_lane(const WarpPointers& lanes, unsigned lane) {
  T value;
  std::memcpy(&value, lanes[lane], sizeof(T));
  return value;
}

[[noreturn]] void fail_in_kernel(const char* what, const std::source_location& place);

// The shuffle's rule: where the wanted lane lies outside the segment, a lane keeps its own value. A lane that does not
// exist has nothing to give: reading it is told at once.
template <class T>
T shuffle_from(T mine, unsigned mask, bool inside, unsigned from, const std::source_location& place) {
  if (mask != 0xffffffffu) fail_in_kernel("a shuffle with a partial mask is not emulated", place);
  const WarpPointers& lanes = warp_gather(&mine, place);
  if (!inside) return mine;
  if (lanes[from] == nullptr) fail_in_kernel("a shuffle reads from a lane that does not take part", place);
  return value_of_lane<T>(lanes, from);
}

}  // namespace cuda_emulation
