// Reading the command line, and the sentences that say what is wrong with one.
#include "comm/base/nearest.h"
#include "comm/group/environment.h"
#include "launch/cli.h"
#include "trainer/config/schema.h"

#include <CLI/CLI.hpp>
#include <fmt/core.h>
#include <fmt/ranges.h>

namespace switchyard {
namespace {

// The app of the command that argv names as far as it names one, and what stands where the next name should be.
struct Reached {
  CLI::App* app;
  std::string command;  // "switchyard bench"
  std::string next;     // empty: nothing more
};

Reached reached_command(CLI::App& app, int argc, const char* const* argv) {
  Reached at{&app, app.get_name(), ""};
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (at.app->get_subcommands([](CLI::App*) { return true; }).empty()) return at;
    if (word.starts_with("-")) return at;  // only --help and --version may stand before a command
    const auto found = at.app->get_subcommands([&](CLI::App* command) { return command->check_name(word); });
    if (found.empty()) {
      at.next = word;
      return at;
    }
    at.app = found.front();
    at.command += " " + word;
  }
  return at;
}

std::vector<std::string> command_names(CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string joined(const std::vector<std::string>& words) {
  return fmt::format("{}", fmt::join(words, ", "));
}

// What a flag such as --help-config answers with, in place of running anything.
struct Answer {
  std::string text;
};

[[noreturn]] void misused(const Reached& at, const std::string& what) {
  throw UsageError(fmt::format("{}\nTry {} --help", what, at.command));
}

}  // namespace

void Command::add_answer(const std::string& names, std::function<std::string()> text, const std::string& help) const {
  app_->add_flag_callback(
      names, [text = std::move(text)] { throw Answer{text()}; }, help);
}

bool CommandLine::parse(int argc, const char* const* argv) {
  CLI::App& app = *app_;
  const Reached at = reached_command(app, argc, argv);
  const std::vector<std::string> names = command_names(*at.app);
  if (!at.next.empty()) {
    misused(at, fmt::format("'{}' is no command of {}{}: there are {}", at.next, at.command,
                            did_you_mean(at.next, names), joined(names)));
  }
  // Every rank reads the same words; one answers.
  const bool answers = launched_as().rank == 0;
  try {
    app.parse(argc, argv);
    return true;
  } catch (const Answer& answer) {
    if (answers) fmt::print("{}", answer.text);
    return false;
  } catch (const CLI::CallForHelp&) {
    if (answers) fmt::print("{}", app.help());
    return false;
  } catch (const CLI::CallForVersion& version) {
    if (answers) fmt::print("{}\n", version.what());
    return false;
  } catch (const CLI::ExtrasError&) {
    const std::vector<std::string> extra = app.remaining(true);
    const std::string first = extra.empty() ? "" : extra.front();
    misused(at, fmt::format("{} does not take '{}'{}", at.command, first, did_you_mean(first, option_names(*at.app))));
  } catch (const CLI::RequiredError& error) {
    if (!names.empty()) misused(at, fmt::format("{} needs a command: {}", at.command, joined(names)));
    misused(at, fmt::format("{}: {}", at.command, error.what()));
  } catch (const CLI::ParseError& error) {
    misused(at, fmt::format("{}: {}", at.command, error.what()));
  }
}

void add_config_options(const Command& command, ConfigOptions& options, ConfigFile form) {
  const bool positional = form == ConfigFile::Positional;
  command.add_option(positional ? "CONFIG" : "--config", options.file, "The config, a TOML file",
                     {.required = true, .type = positional ? "" : "FILE"});
  command.add_option("--set", options.sets, "Take VALUE for a key, over what the config says (may be given again)",
                     {.type = "SECTION.KEY=VALUE", .one_at_a_time = true});
  command.add_answer("--help-config", config_help, "Explain the keys of a config and leave");
}

Config load_config(const ConfigOptions& options, DataFiles data) {
  return config_or_throw(load_config(options.file, options.sets, launched_as().size, data));
}

}  // namespace switchyard
