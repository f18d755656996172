#include "trainer/config/load.h"

#include "data/loader/meta.h"
#include "trainer/config/check.h"
#include "trainer/config/reader.h"

#include <algorithm>
#include <utility>

#include <fmt/core.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// Defaults that hang on what was said of other keys.
void follow(Config& config, const KeyPlaces& places) {
  const auto said = [&](std::string_view path) { return places.order(path) != 0; };
  if (!said("train.warmup_steps")) {
    config.train.warmup_steps = std::min(config.train.warmup_steps, config.train.steps / 10);
  }
  if (!said("moe.renormalise")) config.moe.renormalise = config.moe.top_k > 1;
}

void make_absolute(std::string& place) {
  if (place.empty()) return;
  std::error_code error;
  const fs::path absolute = fs::absolute(place, error);
  if (!error) place = absolute.lexically_normal().string();
}

// The part that all ways to load have in common; `source` reads the file or the text.
template <class Source>
LoadedConfig load(const Source& source, const fs::path& file, std::span<const std::string> sets, int ranks,
                  DataFiles data, DeviceOf device) {
  LoadedConfig loaded;
  ConfigReader reader(loaded);
  reader.preset_from(sets, file);
  source(reader);
  reader.sets(sets);
  // Of keys that could not be read nothing is known, so nothing is said about how they fit.
  if (reader.all_read()) {
    const KeyPlaces places = reader.places(file.empty() ? "defaults" : file.string());
    follow(loaded.config, places);
    if (device == DeviceOf::ThisRun) check_device(loaded.config, places, loaded.faults);
    check_combinations(loaded.config, ranks, places, loaded.faults);
    if (data == DataFiles::Needed) check_files(loaded.config, places, loaded.faults);
  }
  if (loaded.faults.empty()) resolve(loaded.config);
  return loaded;
}

std::string listed(const std::vector<ConfigFault>& faults) {
  std::string text = fmt::format("the config has {} fault{}:", faults.size(), faults.size() == 1 ? "" : "s");
  for (const ConfigFault& fault : faults) text += fmt::format("\n  {}: {}", fault.where, fault.message);
  return text;
}

}  // namespace

LoadedConfig load_config(const fs::path& file, std::span<const std::string> sets, int ranks, DataFiles data) {
  return load(
      [&](ConfigReader& reader) {
        if (!file.empty()) reader.file(file);
      },
      file, sets, ranks, data, DeviceOf::ThisRun);
}

LoadedConfig parse_config(std::string_view text, const std::string& name, std::span<const std::string> sets, int ranks,
                          DeviceOf device) {
  return load([&](ConfigReader& reader) { reader.text(text, name, {}); }, {}, sets, ranks, DataFiles::NotNeeded,
              device);
}

void resolve(Config& config) {
  ModelConfig& model = config.model;
  if (model.kv_heads == 0) model.kv_heads = model.heads;
  // 8/3 d_model gives a gated feed-forward, with its three matrices, the size of the usual 4 d_model with two.
  if (model.d_ff == 0) model.d_ff = ((8 * model.d_model + 2) / 3 + 15) / 16 * 16;
  DataConfig& data = config.data;
  for (std::string* place : {&data.train, &data.valid, &data.tokenizer}) make_absolute(*place);
  if (data.train.empty()) return;
  const fs::path folder = folder_of_data(data.train);
  if (data.tokenizer.empty()) data.tokenizer = folder.string();
  // A lone shard in a folder that prepare did not write has no held-out split beside it.
  std::error_code error;
  if (data.valid.empty() && fs::exists(folder / kMetaName, error)) data.valid = folder.string();
}

ConfigFaults::ConfigFaults(std::vector<ConfigFault> faults)
    : Error(ErrorKind::Usage, listed(faults)), faults_(std::move(faults)) {}

Config config_or_throw(LoadedConfig loaded) {
  if (!loaded.faults.empty()) throw ConfigFaults(std::move(loaded.faults));
  return std::move(loaded.config);
}

}  // namespace switchyard
