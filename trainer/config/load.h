// Reads a config: a preset, the file over it, --set over both; then checks that it can be. All faults are told at once
// (law 7), each with where it is and, for a name that does not exist, the nearest one that does.
#pragma once

#include "comm/base/error.h"
#include "trainer/config/config.h"

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

struct ConfigFault {
  std::string where;    // "run.toml:12", "--set moe.topk=3"; without a number for a key that is not given
  std::string message;  // a sentence with the numbers needed to mend it
};

struct LoadedConfig {
  Config config;  // resolved where there are no faults
  std::vector<ConfigFault> faults;
};

// Whether a run on these settings reads data: then data.train must be given and its files must be there.
enum class DataFiles { Needed, NotNeeded };

// file: empty for defaults and `sets` alone. sets: "section.key=value"; the value as TOML writes it, or a bare word for
// a text. ranks: how many there will be, for the checks of parallel.expert; 0: not known.
LoadedConfig load_config(const std::filesystem::path& file, std::span<const std::string> sets, int ranks,
                         DataFiles data = DataFiles::Needed);

// A config that was saved as text, in a checkpoint for example; `name` stands for the file in messages. No file is
// looked for. device: whether what it computed on must be here.
enum class DeviceOf { ThisRun, AnotherRun };
LoadedConfig parse_config(std::string_view text, const std::string& name, std::span<const std::string> sets, int ranks,
                          DeviceOf device = DeviceOf::ThisRun);

// Gives values to what is left to be computed: kv_heads, d_ff, and the places that follow from data.train; places
// become absolute, so that a saved config means the same from another folder. What depends on the ranks or on the data
// (parallel.expert, model.vocab) stays 0.
void resolve(Config& config);

// Faults as an error, so that they reach main: every rank has found the same ones, before MPI does any work.
class ConfigFaults : public Error {
 public:
  explicit ConfigFaults(std::vector<ConfigFault> faults);
  const std::vector<ConfigFault>& faults() const { return faults_; }

 private:
  std::vector<ConfigFault> faults_;
};

// The config, or ConfigFaults.
Config config_or_throw(LoadedConfig loaded);

}  // namespace switchyard
