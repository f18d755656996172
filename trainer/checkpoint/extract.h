// One expert of a checkpoint as an HDF5 file of its own.
#pragma once

#include <cstdint>
#include <filesystem>

namespace switchyard {

struct Extracted {
  std::int64_t tensors = 0;
  std::int64_t bytes = 0;  // of the file
};
// The datasets have the paths that they have in the checkpoint (/layers/3/experts/17/w_gate and, unless
// drop_optimizer, /optimizer/layers/3/experts/17/w_gate/{m,v}); the file's attributes say run, step, layer, expert,
// dtype and source. `file` must not exist, and is there only once it is whole. Throws Error(Usage), which names what
// there is where there is no such expert, Error(Data) where it is damaged, or Error(Runtime).
Extracted extract_expert(const std::filesystem::path& step_folder, int layer, int expert,
                         const std::filesystem::path& file, bool drop_optimizer);

}  // namespace switchyard
