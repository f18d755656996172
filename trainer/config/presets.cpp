#include "trainer/config/presets.h"

#include <set>

namespace switchyard {

namespace fs = std::filesystem;

std::vector<fs::path> preset_folders(const fs::path& config_folder) {
  const fs::path here = config_folder.empty() ? "." : config_folder;
  std::vector<fs::path> folders{here, here / "presets"};
#ifdef SWITCHYARD_PRESETS
  folders.emplace_back(SWITCHYARD_PRESETS);
#endif
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) folders.push_back(program.parent_path().parent_path() / "share/switchyard/presets");
  return folders;
}

std::optional<fs::path> find_preset(std::string_view name, std::span<const fs::path> folders, const fs::path& asking) {
  if (name.empty() || name.find('/') != std::string_view::npos) return std::nullopt;
  for (const fs::path& folder : folders) {
    const fs::path file = folder / (std::string(name) + ".toml");
    std::error_code error;
    if (fs::is_regular_file(file, error) && !fs::equivalent(file, asking, error)) return file;
  }
  return std::nullopt;
}

std::vector<std::string> preset_names(std::span<const fs::path> folders) {
  std::set<std::string> names;
  for (const fs::path& folder : folders) {
    if (folder.filename() != "presets") continue;  // other TOML files beside a config are not presets
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
      if (entry.path().extension() == ".toml") names.insert(entry.path().stem().string());
    }
  }
  return {names.begin(), names.end()};
}

}  // namespace switchyard
