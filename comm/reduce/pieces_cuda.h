// What the sums and gathers of device_sums.h run on a CUDA device. All pieces of a call are worked on in few launches,
// in the order of the device's main stream; no two of them overlap.
#pragma once

#include "comm/device/device.h"

#include <cstdint>
#include <span>

namespace switchyard::cuda {

// Bytes go in 16-byte accesses where both addresses have the same place beside the 16-byte boundaries; a piece consists
// of 4-byte words.
struct CopiedPiece {
  void* to;
  const void* from;
  std::int64_t bytes;
};
void copy_pieces(Device& device, std::span<const CopiedPiece> pieces);

// own[i] becomes the sum of the holders' shares, added in the holders' order: own[i] itself is that of holder `me`,
// others[k * stride + i] that of the k-th of the others.
template <class T>
struct SummedPiece {
  T* own;
  const T* others;
  std::int64_t stride;
  std::int64_t count;
  int holders;
  int me;
};
void sum_pieces(Device& device, std::span<const SummedPiece<float>> pieces);
void sum_pieces(Device& device, std::span<const SummedPiece<std::int64_t>> pieces);

}  // namespace switchyard::cuda
