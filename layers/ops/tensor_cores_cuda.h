// By which instruction of the tensor cores a product of ours of bf16 matrices is made: wgmma where the GPU is of
// compute capability 9.0 (H100, H200), mma.sync everywhere else. The two may round differently inside: all products of
// a process take the same one.
#pragma once

#include "comm/device/device.h"

namespace switchyard::cuda {

// Best: what the process uses. The others are asked for by measurements and checks; those of wgmma, which need such a
// GPU, by the shape of their tiles.
enum class TensorCores { Best, Mma, WgmmaSmall, WgmmaLarge, WgmmaWide };

// Whether the GPU is one that has wgmma, and SWITCHYARD_WGMMA=0 in the environment does not ask for mma.sync.
bool has_wgmma(const Device& device);
// Whether Best is wgmma. The first call on a GPU that has it tries it on small products whose sums are known: where one
// is wrong, a warning tells so and the process uses mma.sync.
bool uses_wgmma(Device& device);
inline bool is_wgmma(TensorCores cores, Device& device) {
  return cores == TensorCores::Best ? uses_wgmma(device) : cores != TensorCores::Mma;
}

}  // namespace switchyard::cuda
