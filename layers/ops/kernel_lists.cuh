// Short lists that the host gives a kernel: in the launch's arguments where they fit, which costs nothing, or else in
// the device's workspace, which a captured launch cannot have. Several lists lie behind one another; a list is named by
// where it begins.
#pragma once

#include "comm/device/kernel.cuh"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace switchyard::cuda {

// What a kernel takes, as a __grid_constant__ argument: its own memory is then read where the launch put it.
struct KernelLists {
  static constexpr std::size_t room = 3072;  // of the 4 KiB that arguments may have
  alignas(16) unsigned char here[room];
  const unsigned char* elsewhere;

  template <class T>
  __device__ __forceinline__ const T* at(unsigned begin) const {
    return reinterpret_cast<const T*>((elsewhere != nullptr ? elsewhere : here) + begin);
  }
};

class ListBuilder {
 public:
  // -> where the list begins
  template <class T>
  unsigned add(std::span<const T> list) {
    const std::size_t begin = (bytes_.size() + alignof(T) - 1) / alignof(T) * alignof(T);
    bytes_.resize(begin + list.size_bytes());
    if (!list.empty()) std::memcpy(bytes_.data() + begin, list.data(), list.size_bytes());
    return static_cast<unsigned>(begin);
  }

  // For the next launch on the device's stream.
  KernelLists lists(Device& device) const {
    KernelLists result;
    result.elsewhere = nullptr;
    if (bytes_.size() <= KernelLists::room) {
      std::memcpy(result.here, bytes_.data(), bytes_.size());
      return result;
    }
    const Bytes bytes(isize(bytes_.size()));
    void* const there = device.workspace(bytes);
    device.copy_from_host(there, bytes_.data(), bytes, device.stream());
    result.elsewhere = static_cast<const unsigned char*>(there);
    return result;
  }

 private:
  std::vector<unsigned char> bytes_;
};

}  // namespace switchyard::cuda
