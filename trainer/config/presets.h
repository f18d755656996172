// Presets: configs that come with the program, to be named (preset = "quickstart") and built upon.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// Where presets are looked for, first to last: beside the config and in presets/ there, the folder of the source tree,
// the one of an installation. The first two hang on where the config is.
constexpr std::size_t kPresetFoldersByConfig = 2;
std::vector<std::filesystem::path> preset_folders(const std::filesystem::path& config_folder);

// NAME.toml in the first folder that has it, other than the file `asking` itself.
std::optional<std::filesystem::path> find_preset(std::string_view name, std::span<const std::filesystem::path> folders,
                                                 const std::filesystem::path& asking);

// What there is to choose from, sorted.
std::vector<std::string> preset_names(std::span<const std::filesystem::path> folders);

}  // namespace switchyard
