// Tries wgmma before a process relies on it.
#pragma once

#include "comm/device/device.h"

#include <string>

namespace switchyard::cuda {

// Products of small integers, which every order of sums gives exactly, by all kinds of tiles and in all layouts. ->
// what is wrong in words, empty where all is right. Waits for the device.
std::string wgmma_fault(Device& device);

}  // namespace switchyard::cuda
