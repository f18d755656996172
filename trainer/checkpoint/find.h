// Which checkpoints a folder has.
#pragma once

#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/manifest.h"

#include <cstdint>
#include <filesystem>
#include <vector>

namespace switchyard::checkpoint {

struct Candidate {
  std::int64_t step = 0;
  std::filesystem::path path;
};

// Whatever has a step's name, newest first. Throws Error(Runtime) where the folder is there and cannot be listed.
std::vector<Candidate> step_folders(const std::filesystem::path& checkpoints);

// Throws Error(Data) where it is a symbolic link, or a file.
void check_is_folder(const std::filesystem::path& path);
// Every file is there with its size, and the folder, where it is named as a step, is named as its own. Throws
// Error(Data).
void check_complete(const std::filesystem::path& step_folder, const Manifest& manifest);
// The manifest, and every file is there with its size, and the step is that of the folder's name. Throws Error(Data).
Manifest read_complete(const Candidate& candidate);
bool looks_complete(const Candidate& candidate);

CheckpointInfo info_of(const std::filesystem::path& step_folder, const Manifest& manifest);

}  // namespace switchyard::checkpoint
