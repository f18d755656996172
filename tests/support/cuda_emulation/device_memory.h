// The emulated device's memory: one reserved region of addresses in which each block lies between guard pages.
#pragma once

#include <cstddef>

namespace cuda_emulation {

// The memory can be read and written while one of these lives. They may nest; one thread at a time.
class OpenMemory {
 public:
  OpenMemory();
  ~OpenMemory();
  OpenMemory(const OpenMemory&) = delete;
  OpenMemory& operator=(const OpenMemory&) = delete;
};

void* take_memory(std::size_t bytes);                          // filled with 0xff; nullptr where there is none
bool give_back(void* memory);                                  // false: no block begins there
bool is_device_memory(const void* memory, std::size_t bytes);  // within one block
bool touches_device_region(const void* memory);
std::size_t memory_size();
std::size_t memory_in_use();

}  // namespace cuda_emulation
