#include "launch/command_line.h"

#include <utility>

#include <CLI/CLI.hpp>

namespace switchyard {
namespace {

struct AddCheck {
  CLI::Option& option;
  void operator()(accept::Anything) const {}
  void operator()(accept::NotNegative) const { option.check(CLI::NonNegativeNumber); }
  void operator()(accept::Positive) const { option.check(CLI::PositiveNumber); }
  void operator()(accept::Integers range) const { option.check(CLI::Range(range.low, range.high)); }
  void operator()(accept::Reals range) const { option.check(CLI::Range(range.low, range.high)); }
  void operator()(const accept::OneOf& one) const { option.check(CLI::IsMember(one.names)); }
};

}  // namespace

Command Command::add_command(const std::string& name, const std::string& help) const {
  return Command(*app_->add_subcommand(name, help));
}

void Command::require_command() const {
  app_->require_subcommand(1);
}

template <OptionValue T>
void Command::add_option(const std::string& names, T& value, const std::string& help, const OptionTerms& terms) const {
  CLI::Option& option = *app_->add_option(names, value, help);
  option.required(terms.required);
  std::visit(AddCheck{option}, terms.accepted);
  if (terms.type) option.type_name(*terms.type);
  if (terms.show_default) option.capture_default_str();
  if (terms.one_at_a_time) option.allow_extra_args(false);
  for (const std::string& other : terms.excludes) option.excludes(app_->get_option(other));
}

template void Command::add_option(const std::string&, int&, const std::string&, const OptionTerms&) const;
template void Command::add_option(const std::string&, std::int64_t&, const std::string&, const OptionTerms&) const;
template void Command::add_option(const std::string&, std::uint64_t&, const std::string&, const OptionTerms&) const;
template void Command::add_option(const std::string&, double&, const std::string&, const OptionTerms&) const;
template void Command::add_option(const std::string&, std::string&, const std::string&, const OptionTerms&) const;
template void Command::add_option(const std::string&, std::filesystem::path&, const std::string&,
                                  const OptionTerms&) const;
template void Command::add_option(const std::string&, std::vector<std::int64_t>&, const std::string&,
                                  const OptionTerms&) const;
template void Command::add_option(const std::string&, std::vector<std::string>&, const std::string&,
                                  const OptionTerms&) const;
template void Command::add_option(const std::string&, std::vector<std::filesystem::path>&, const std::string&,
                                  const OptionTerms&) const;
template void Command::add_option(const std::string&, std::optional<std::int64_t>&, const std::string&,
                                  const OptionTerms&) const;
template void Command::add_option(const std::string&, std::optional<double>&, const std::string&,
                                  const OptionTerms&) const;

void Command::add_flag(const std::string& names, bool& value, const std::string& help,
                       const std::vector<std::string>& excludes) const {
  CLI::Option& flag = *app_->add_flag(names, value, help);
  for (const std::string& other : excludes) flag.excludes(app_->get_option(other));
}

void Command::does(Run& run, Run work) const {
  app_->callback([&run, work = std::move(work)] { run = work; });
}

void Command::then(std::function<void()> change) const {
  app_->final_callback(std::move(change));
}

CommandLine::CommandLine(const std::string& name, const std::string& help, const std::string& version)
    : app_(std::make_unique<CLI::App>(help, name)) {
  app_->set_help_flag("-h,--help", "Print this and leave");
  app_->set_version_flag("--version", version, "Print the version and leave");
  app_->require_subcommand(1);
  app_->get_formatter()->column_width(34);
  app_->get_formatter()->label("REQUIRED", "(required)");
}

CommandLine::~CommandLine() = default;

}  // namespace switchyard
