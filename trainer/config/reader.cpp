#include "trainer/config/reader.h"

#include "comm/base/nearest.h"
#include "trainer/config/presets.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

#include <fmt/core.h>
#include <fmt/ranges.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

const char* type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a section";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a text";
    case toml::node_type::integer:
      return "a whole number";
    case toml::node_type::floating_point:
      return "a number with a point";
    case toml::node_type::boolean:
      return "true or false";
    default:
      return "a date or time";
  }
}

std::string shown(const toml::node& node) {
  if (node.is_table() || node.is_array()) return type_name(node);
  std::ostringstream text;
  text << toml::node_view<const toml::node>(node);
  return text.str();
}

bool is_section(std::string_view name) {
  const std::vector<std::string>& sections = config_sections();
  return std::find(sections.begin(), sections.end(), name) != sections.end();
}

// The node as a value of the key's type; nothing where it is of another type.
std::optional<ConfigValue> value_of(const ConfigKey& key, const toml::node& node) {
  switch (key.type) {
    case ConfigType::Integer:
      if (const auto* integer = node.as_integer()) return integer->get();
      break;
    case ConfigType::Real:
      if (const auto* real = node.as_floating_point()) return real->get();
      if (const auto* integer = node.as_integer()) return static_cast<double>(integer->get());
      break;
    case ConfigType::Flag:
      if (const auto* flag = node.as_boolean()) return flag->get();
      break;
    case ConfigType::Text:
    case ConfigType::Choice:
      if (const auto* text = node.as_string()) return text->get();
      break;
  }
  return std::nullopt;
}

// --set PATH=VALUE. value: a table with the one key "value".
struct SetArgument {
  std::string path;  // empty where there is none
  toml::table value;
};

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

SetArgument parse_set(std::string_view text) {
  SetArgument set;
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) return set;
  set.path = trimmed(text.substr(0, equals));
  const std::string given = trimmed(text.substr(equals + 1));
  // A value as TOML writes it; what is not one is a text without its quotes. So is whatever is given to a text key.
  try {
    set.value = toml::parse("value = " + given);
  } catch (const toml::parse_error&) {
    set.value.clear();
  }
  const ConfigKey* key = find_config_key(set.path);
  const bool takes_text = key != nullptr && (key->type == ConfigType::Text || key->type == ConfigType::Choice);
  const toml::node* value = set.value.size() == 1 ? set.value.get("value") : nullptr;
  if (value == nullptr || (takes_text && !value->is_string())) {
    set.value.clear();
    set.value.insert("value", given);
  }
  return set;
}

}  // namespace

void ConfigReader::file(const fs::path& path) {
  std::error_code error;
  std::ostringstream content;
  std::ifstream stream(path, std::ios::binary);
  if (!fs::exists(path, error)) {
    tell(path.string(), "there is no such config file");
  } else if (fs::is_directory(path, error)) {
    tell(path.string(), "this is a folder, not a config file");
  } else if (!stream || (fs::file_size(path, error) > 0 && !(content << stream.rdbuf()))) {
    tell(path.string(), "the config file cannot be read");
  } else {
    return text(content.view(), path.string(), path);
  }
  all_read_ = false;
}

void ConfigReader::text(std::string_view text, const std::string& name, const fs::path& path) {
  try {
    table(toml::parse(text, name), name, path);
  } catch (const toml::parse_error& error) {
    all_read_ = false;
    const auto& at = error.source().begin;
    tell(fmt::format("{}:{}:{}", name, at.line, at.column), "not TOML: {}", error.description());
  }
}

void ConfigReader::table(const toml::table& table, const std::string& name, const fs::path& path) {
  const auto place = [&](const toml::source_region& region) { return fmt::format("{}:{}", name, region.begin.line); };
  // A preset lies underneath, wherever in the file it is named; one from --set has taken its place already.
  const toml::node* named = table.get("preset");
  if (named != nullptr && !(preset_set_ && open_presets_.empty())) preset(*named, place(named->source()), path);
  // TOML++ gives keys by name; people read them by line.
  struct Entry {
    toml::source_position at;
    std::string section, name;
    const toml::node* node;
  };
  std::vector<Entry> entries;
  for (const auto& [key, node] : table) {
    const bool section = is_section(key.str());
    if (section && node.is_table()) {
      for (const auto& [inner, value] : *node.as_table()) {
        entries.push_back({inner.source().begin, std::string(key.str()), std::string(inner.str()), &value});
      }
    } else if (key.str() != "preset") {
      entries.push_back({key.source().begin, "", std::string(key.str()), &node});
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.at < b.at; });
  for (const auto& [at, section, key, node] : entries) entry(section, key, *node, fmt::format("{}:{}", name, at.line));
}

void ConfigReader::entry(const std::string& section, std::string_view name, const toml::node& node,
                         const std::string& where) {
  const std::string path = section.empty() ? std::string(name) : fmt::format("{}.{}", section, name);
  if (const ConfigKey* key = find_config_key(path)) return assign(*key, node, where);
  if (section.empty() && is_section(name)) {
    return tell(where, "{} is a section, [{}] with keys below it, not {}", name, name, type_name(node));
  }
  if (!section.empty() && !is_section(section)) return unknown_section(section, where);
  if (section.empty() && node.is_table()) return unknown_section(name, where);
  unknown(section, name, where);
}

void ConfigReader::unknown_section(std::string_view name, const std::string& where) {
  tell(where, "there is no section [{}]{}", name, did_you_mean(name, config_sections()));
}

void ConfigReader::unknown(const std::string& section, std::string_view name, const std::string& where) {
  const std::string place = section.empty() ? "at the top level" : fmt::format("in [{}]", section);
  // The right name under the wrong heading is told as such; a misspelling is looked for under this heading first.
  std::vector<std::string> elsewhere;
  for (const ConfigKey& key : config_keys()) {
    if (key.name == name) elsewhere.push_back(key.path());
  }
  std::vector<std::string> names = config_key_names(section);
  if (section.empty()) names.push_back("preset");
  std::string hint = did_you_mean(name, names);
  if (!elsewhere.empty()) {
    hint = fmt::format(" (did you mean {}?)", fmt::join(elsewhere, " or "));
  } else if (hint.empty()) {
    std::vector<std::string> all;
    for (const ConfigKey& key : config_keys()) all.push_back(key.name);
    if (const std::string nearest = nearest_name(name, all); !nearest.empty()) {
      for (const ConfigKey& key : config_keys()) {
        if (key.name == nearest) elsewhere.push_back(key.path());
      }
      hint = fmt::format(" (did you mean {}?)", fmt::join(elsewhere, " or "));
    }
  }
  tell(where, "there is no key '{}' {}{}", name, place, hint);
}

void ConfigReader::assign(const ConfigKey& key, const toml::node& node, const std::string& where) {
  const std::string path = key.path();
  places_[path] = {where, ++order_};
  unsound_.insert(path);  // until it turns out to be sound
  const std::optional<ConfigValue> value = value_of(key, node);
  if (!value) return tell(where, "{} = {} is {}; it wants {}", path, shown(node), type_name(node), key.wanted());
  if (key.type == ConfigType::Choice) {
    const std::string& name = std::get<std::string>(*value);
    if (std::find(key.choices.begin(), key.choices.end(), name) == key.choices.end()) {
      return tell(where, "{} = '{}' is not {}{}", path, name, key.wanted(), did_you_mean(name, key.choices));
    }
  } else if (key.type == ConfigType::Integer || key.type == ConfigType::Real) {
    const auto* integer = std::get_if<std::int64_t>(&*value);
    if (!key.bounds.hold(integer != nullptr ? static_cast<double>(*integer) : std::get<double>(*value))) {
      return tell(where, "{} = {} is out of range: it wants {}", path, shown(node), key.wanted());
    }
  }
  key.set(result_.config, *value);
  unsound_.erase(path);
}

void ConfigReader::preset(const toml::node& node, const std::string& where, const fs::path& asking) {
  const auto* text = node.as_string();
  if (text == nullptr)
    return tell(where, "preset = {} is {}; it wants the name of a preset in quotes", shown(node), type_name(node));
  const std::string& name = text->get();
  if (std::find(open_presets_.begin(), open_presets_.end(), name) != open_presets_.end()) {
    return tell(where, "preset '{}' names itself, by way of {}", name, fmt::join(open_presets_, " -> "));
  }
  const std::vector<fs::path> folders = preset_folders(asking.parent_path());
  const std::optional<fs::path> found = find_preset(name, folders, asking);
  if (!found) {
    return tell(where, "there is no preset '{}'{}", name, did_you_mean(name, preset_names(folders)));
  }
  open_presets_.push_back(name);
  file(*found);
  open_presets_.pop_back();
}

void ConfigReader::preset_from(std::span<const std::string> sets, const fs::path& config) {
  for (const std::string& text : sets) {
    const SetArgument set = parse_set(text);
    if (set.path != "preset") continue;
    preset_set_ = true;
    preset(*set.value.get("value"), "--set " + text, config);
  }
}

void ConfigReader::sets(std::span<const std::string> sets) {
  for (const std::string& text : sets) {
    const std::string where = "--set " + text;
    const SetArgument set = parse_set(text);
    const std::size_t dot = set.path.find('.');
    const std::string section = dot == std::string::npos ? "" : set.path.substr(0, dot);
    const std::string name = dot == std::string::npos ? set.path : set.path.substr(dot + 1);
    if (set.path.empty()) {
      tell(where, "--set wants SECTION.KEY=VALUE");
    } else if (set.path != "preset") {
      entry(section, name, *set.value.get("value"), where);
    }
  }
}

KeyPlaces ConfigReader::places(const std::string& unsaid) const {
  const auto order = [this](std::string_view path) {
    const auto found = places_.find(path);
    return found == places_.end() ? 0 : found->second.order;
  };
  const auto where = [this, unsaid](std::string_view path) {
    const auto found = places_.find(path);
    return found == places_.end() ? unsaid : found->second.where;
  };
  return {where, [this](std::string_view path) { return !unsound_.contains(path); }, order};
}

}  // namespace switchyard
