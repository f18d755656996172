#include "tests/support/cuda_emulation/device_memory.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <stdexcept>

#include <sys/mman.h>

namespace cuda_emulation {
namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t alignment = 256;  // as cudaMalloc gives it
// Addresses; blocks are never given the same ones again soon. ThreadSanitizer leaves less room.
#ifdef SWITCHYARD_RACES
constexpr std::size_t region_size = std::size_t(1) << 36;
#else
constexpr std::size_t region_size = std::size_t(1) << 40;
#endif
constexpr std::size_t device_size = std::size_t(8) << 30;

struct Block {
  std::uintptr_t pages;  // where its pages begin
  std::size_t page_bytes;
  std::size_t bytes;
};

// Opening and closing hundreds of blocks takes longer than most kernels: whole programs may do without.
bool is_always_open() {
  static const bool open = std::getenv("CUDA_EMULATION_OPEN") != nullptr;
  return open;
}

struct Memory {
  std::mutex mutex;
  std::uintptr_t region = 0, next = 0;
  std::map<std::uintptr_t, Block> blocks;  // by the address that was given out
  std::size_t in_use = 0;
  int open = is_always_open() ? 1 : 0;
};

// Lives as long as the process: objects with static storage may give their device memory back after any of ours is
// gone.
Memory& memory() {
  static Memory& only = *new Memory;
  return only;
}

void protect(const Block& block, int rights) {
  if (::mprotect(reinterpret_cast<void*>(block.pages), block.page_bytes, rights) != 0) {
    throw std::runtime_error("CUDA emulation: mprotect failed");
  }
}

}  // namespace

OpenMemory::OpenMemory() {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  if (m.open++ > 0) return;
  for (const auto& [address, block] : m.blocks) protect(block, PROT_READ | PROT_WRITE);
}

OpenMemory::~OpenMemory() {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  if (--m.open > 0) return;
  for (const auto& [address, block] : m.blocks) protect(block, PROT_NONE);
}

void* take_memory(std::size_t bytes) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  if (m.region == 0) {
    void* const mapped = ::mmap(nullptr, region_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    m.region = m.next = reinterpret_cast<std::uintptr_t>(mapped);
  }
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  const std::size_t page_bytes = (rounded + page - 1) / page * page;
  if (bytes > device_size - m.in_use || m.next + page_bytes + 2 * page > m.region + region_size) return nullptr;
  // The block ends where its pages do: what runs over its end faults.
  const Block block{m.next + page, page_bytes, bytes};
  m.next += page_bytes + page;
  const std::uintptr_t address = block.pages + page_bytes - rounded;
  protect(block, PROT_READ | PROT_WRITE);
  std::memset(reinterpret_cast<void*>(block.pages), 0xff, page_bytes);
  if (m.open == 0) protect(block, PROT_NONE);
  m.blocks.emplace(address, block);
  m.in_use += bytes;
  return reinterpret_cast<void*>(address);
}

bool give_back(void* given) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto found = m.blocks.find(reinterpret_cast<std::uintptr_t>(given));
  if (found == m.blocks.end()) return false;
  // The addresses stay reserved, so that using them after this faults; the memory goes back to the system.
  ::mmap(reinterpret_cast<void*>(found->second.pages), found->second.page_bytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  m.in_use -= found->second.bytes;
  m.blocks.erase(found);
  return true;
}

bool is_device_memory(const void* given, std::size_t bytes) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto address = reinterpret_cast<std::uintptr_t>(given);
  const auto after = m.blocks.upper_bound(address);
  if (after == m.blocks.begin()) return false;
  const auto& [begin, block] = *std::prev(after);
  return address - begin <= block.bytes && bytes <= block.bytes - (address - begin);
}

bool touches_device_region(const void* given) {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto address = reinterpret_cast<std::uintptr_t>(given);
  return m.region != 0 && address >= m.region && address < m.region + region_size;
}

std::size_t memory_size() {
  return device_size;
}
std::size_t memory_in_use() {
  Memory& m = memory();
  const std::lock_guard lock(m.mutex);
  return m.in_use;
}

}  // namespace cuda_emulation
