// A tensor's bytes from their place in a file, a piece at a time and hashed on the way: a tensor of any size takes a
// few hundred KiB of memory, and no HDF5.
#pragma once

#include "trainer/checkpoint/manifest.h"

#include <cstdint>
#include <filesystem>
#include <functional>

namespace switchyard::checkpoint {

// Gives the record's bytes in their order, a whole number of elements each time. Throws Error(Data), after the last of
// them, where their XXH3-64 is not the manifest's: what was made of them must then be dropped.
void stream_record(const std::filesystem::path& folder, const TensorRecord& record,
                   const std::function<void(const void* data, std::int64_t bytes)>& take);

}  // namespace switchyard::checkpoint
