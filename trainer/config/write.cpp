// The config as text: for people, and for a file that loads back.
#include "trainer/config/presets.h"
#include "trainer/config/schema.h"

#include <string>

#include <fmt/core.h>

namespace switchyard {
namespace {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char letter : text) {
    const auto code = static_cast<unsigned char>(letter);
    if (letter == '"' || letter == '\\') {
      result += {'\\', letter};
    } else if (code < 0x20 || code == 0x7f) {
      result += fmt::format("\\u{:04x}", code);
    } else {
      result += letter;
    }
  }
  return result + '"';
}

}  // namespace

std::string config_help() {
  const Config defaults;
  std::string text =
      "A config is a TOML file. Every key has a default, but for data.train; --set SECTION.KEY=VALUE overrides one.\n"
      "preset = \"NAME\" at the top takes what the file does not say from NAME.toml, which is looked for beside the\n"
      "config, in presets/ there, and then in:\n";
  const std::vector<std::filesystem::path> folders = preset_folders({});
  for (std::size_t i = kPresetFoldersByConfig; i < folders.size(); ++i)
    text += fmt::format("  {}\n", folders[i].string());
  text += "\n";
  std::string section;
  for (const ConfigKey& key : config_keys()) {
    if (key.section != section) {
      section = key.section;
      text += fmt::format("\n[{}]\n", section);
    }
    text += fmt::format("{:<18} {}\n{:<18} {}; default {}\n", key.name, key.help, "", key.wanted(),
                        to_toml(key.get(defaults)));
  }
  return text;
}

std::string to_toml(const ConfigValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return quoted(*text);
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return fmt::format("{}", *integer);
  // The shortest digits that read back to the same double; a real number stays one by its point or exponent.
  std::string text = fmt::format("{}", std::get<double>(value));
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

std::string to_toml(const Config& config) {
  std::string text, section;
  for (const ConfigKey& key : config_keys()) {
    if (key.section != section) {
      section = key.section;
      text += fmt::format("\n[{}]\n", section);
    }
    text += fmt::format("{} = {}\n", key.name, to_toml(key.get(config)));
  }
  return text;
}

}  // namespace switchyard
