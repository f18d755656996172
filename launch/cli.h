// The frame of the command line: what every subcommand has in common.
#pragma once

#include "comm/base/error.h"
#include "launch/command_line.h"
#include "trainer/config/load.h"

#include <filesystem>
#include <string>
#include <vector>

namespace switchyard {

// The command line itself is wrong. Every rank reads the same one, so it is told once and before MPI does any work.
class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(ErrorKind::Usage, message) {}
};

// The options by which a subcommand is told its config: CONFIG or --config, --set, --help-config.
struct ConfigOptions {
  std::filesystem::path file;
  std::vector<std::string> sets;
};
enum class ConfigFile { Positional, Option };
void add_config_options(const Command& command, ConfigOptions& options, ConfigFile form);

// The config of these options for as many ranks as the launcher started. Throws ConfigFaults.
Config load_config(const ConfigOptions& options, DataFiles data = DataFiles::Needed);

}  // namespace switchyard
