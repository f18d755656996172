// What adamw.cpp runs on a CUDA device.
#pragma once

#include "layers/ops/adamw.h"
#include "layers/ops/adamw_cpu.h"

#include <span>

namespace switchyard::cuda {

// keep_still: what `keep` is for parts that do not decay.
void adamw(Device& device, const cpu::AdamWFactors& factors, float keep_still, double scale,
           std::span<const AdamWPart> parts);
void squares_by_block(Device& device, double scale, std::span<const AdamWPart> parts, std::span<double* const> sums);

}  // namespace switchyard::cuda
