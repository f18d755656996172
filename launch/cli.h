// The frame of the command line: what every subcommand has in common.
#pragma once

#include "comm/base/error.h"
#include "trainer/config/load.h"

#include <filesystem>
#include <string>
#include <vector>

#include <CLI/App.hpp>

namespace switchyard {

// The command line itself is wrong. Every rank reads the same one, so it is told once and before MPI does any work.
class UsageError : public Error {
 public:
  explicit UsageError(const std::string& message) : Error(ErrorKind::Usage, message) {}
};

// CLI11 as this program uses it: help in our words, one command required, the nearest name for a misspelt one.
void set_up_app(CLI::App& app);

// Reads the command line and runs the callbacks of the subcommands. Returns false where --help or --version has been
// answered and nothing is left to do. Throws UsageError.
bool parse_command_line(CLI::App& app, int argc, const char* const* argv);

// The options by which a subcommand is told its config: CONFIG or --config, --set, --help-config.
struct ConfigOptions {
  std::filesystem::path file;
  std::vector<std::string> sets;
};
enum class ConfigFile { Positional, Option };
void add_config_options(CLI::App& command, ConfigOptions& options, ConfigFile form);

// The config of these options for as many ranks as the launcher started. Throws ConfigFaults.
Config load_config(const ConfigOptions& options, DataFiles data = DataFiles::Needed);

}  // namespace switchyard
