// index.h5: the whole checkpoint as one HDF5 file, made of relative external links. For people and their tools; nothing
// here ever reads it.
#pragma once

#include "trainer/checkpoint/manifest.h"

namespace switchyard::checkpoint {

FileRecord write_index(const std::filesystem::path& folder, const Manifest& manifest);

}  // namespace switchyard::checkpoint
