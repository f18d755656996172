// How a subcommand declares itself: its options in plain data, and what it does.
//
// CLI11 stands behind it, and is seen by command_line.cpp and parse.cpp alone: it is all templates, with which each
// file that includes it takes ten seconds and more to compile.
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace CLI {
class App;
}

namespace switchyard {

using Run = std::function<int()>;  // a command's work; gives the exit code

// What a value must be, besides of its type.
namespace accept {
struct Anything {};
struct NotNegative {};
struct Positive {};
struct Integers {  // low and high among them
  std::int64_t low = 0, high = 0;
};
struct Reals {
  double low = 0, high = 0;
};
struct OneOf {
  std::vector<std::string> names;
};
}  // namespace accept
using Accepted = std::variant<accept::Anything, accept::NotNegative, accept::Positive, accept::Integers, accept::Reals,
                              accept::OneOf>;

struct OptionTerms {
  bool required = false;
  Accepted accepted = accept::Anything();
  std::optional<std::string> type = {};    // the value's name in --help; where it is not said, one for its type
  bool show_default = false;               // in --help, as the value is when the option is declared
  bool one_at_a_time = false;              // of a list: each value wants the option's name before it
  std::vector<std::string> excludes = {};  // options that may not stand beside it, declared before it
};

template <class T>
concept OptionValue = std::same_as<T, int> || std::same_as<T, std::int64_t> || std::same_as<T, std::uint64_t> ||
    std::same_as<T, double> || std::same_as<T, std::string> || std::same_as<T, std::filesystem::path> ||
    std::same_as<T, std::vector<std::int64_t>> || std::same_as<T, std::vector<std::string>> ||
    std::same_as<T, std::vector<std::filesystem::path>> || std::same_as<T, std::optional<std::int64_t>> ||
    std::same_as<T, std::optional<double>>;

// A command of a CommandLine, which outlives it.
class Command {
 public:
  explicit Command(CLI::App& app) : app_(&app) {}

  Command add_command(const std::string& name, const std::string& help) const;
  void require_command() const;  // it does nothing without one of its own commands

  // names: "-o,--out", or "SRC" for an argument that is told by its place. The value outlives the command line; it
  // keeps what it is where the option is not given.
  template <OptionValue T>
  void add_option(const std::string& names, T& value, const std::string& help, const OptionTerms& terms = {}) const;
  void add_flag(const std::string& names, bool& value, const std::string& help,
                const std::vector<std::string>& excludes = {}) const;
  // A flag that prints this text in place of running anything.
  void add_answer(const std::string& names, std::function<std::string()> text, const std::string& help) const;

  // Where the command is given, its work is put into `run`. Nothing is done while the command line is still being read.
  void does(Run& run, Run work) const;
  // Called after the work of the command's own commands has been put there.
  void then(std::function<void()> change) const;

 private:
  CLI::App* app_;
};

// The program's, with --help and --version in our words; one command is required.
class CommandLine {
 public:
  CommandLine(const std::string& name, const std::string& help, const std::string& version);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  Command root() { return Command(*app_); }
  // Puts together what the given command does. Returns false where --help or the like has been answered and nothing is
  // left to do. Throws UsageError, with the nearest name for a misspelt one.
  bool parse(int argc, const char* const* argv);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace switchyard
