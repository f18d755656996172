// What a checkpoint holds, for people: parameters by kind, files, and the size of each expert's weights.
#pragma once

#include "trainer/checkpoint/manifest.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard::checkpoint {

// "attention", "experts", ...: what a parameter is for, by its name.
const char* part_of_model(std::string_view name);

using ExpertKey = std::pair<int, int>;  // layer, expert

struct FileSummary {
  FileRecord file;
  std::int64_t tensors = 0;
  std::set<ExpertKey> experts;
};

struct Summary {
  std::int64_t parameters = 0;
  std::vector<std::pair<std::string, std::int64_t>> by_part;  // in the order in which the manifest first has them
  std::map<int, std::vector<int>> experts;                    // of each layer, ascending
  std::vector<FileSummary> files;
  bool optimizer = false;  // Adam's moments are there
};
Summary summarise(const Manifest& manifest);

// The Euclidean norm of all weights of each expert, summed in double in the manifest's order; a pass over those weights
// with little memory. Throws Error(Data) where they are not what was written.
std::map<ExpertKey, double> expert_norms(const std::filesystem::path& folder, const Manifest& manifest);

}  // namespace switchyard::checkpoint
