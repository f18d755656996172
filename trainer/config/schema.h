// The keys of a config: one table gives names, types, bounds, help text and the way in which each is read and written.
// A new key is a member of a struct in config.h and a line in schema.cpp.
#pragma once

#include "trainer/config/config.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace switchyard {

using ConfigValue = std::variant<std::int64_t, double, bool, std::string>;
enum class ConfigType { Integer, Real, Flag, Text, Choice };

struct Bounds {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;   // low itself is outside
  bool high_open = false;  // high itself is outside

  bool hold(double value) const;  // never for NaN and the infinities
  std::string describe() const;   // "at least 1", "from 0 up to 1", "above 0"
};

struct ConfigKey {
  std::string section;  // "" for a key at the top level
  std::string name;
  ConfigType type = ConfigType::Integer;
  Bounds bounds;                     // of Integer and Real
  std::vector<std::string> choices;  // of Choice
  std::string help;
  std::function<ConfigValue(const Config&)> get;
  std::function<void(Config&, const ConfigValue&)> set;  // the value has the key's type

  std::string path() const { return section.empty() ? name : section + "." + name; }
  std::string wanted() const;  // "a whole number, at least 1"
};

std::span<const ConfigKey> config_keys();                 // in the order in which they are written
const ConfigKey* find_config_key(std::string_view path);  // "moe.top_k"; null where there is none
const std::vector<std::string>& config_sections();
std::vector<std::string> config_key_names(std::string_view section);

// The table for people: `switchyard train --help-config`.
std::string config_help();

// A value as TOML writes it; loads back to the same value.
std::string to_toml(const ConfigValue& value);
// All keys with their values. Loads back to the same config.
std::string to_toml(const Config& config);

}  // namespace switchyard
