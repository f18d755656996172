// Takes in the sources of a config, one over another, and keeps where every value came from.
#pragma once

#include "trainer/config/check.h"
#include "trainer/config/load.h"
#include "trainer/config/schema.h"

#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <toml++/toml.h>

namespace switchyard {

class ConfigReader {
 public:
  explicit ConfigReader(LoadedConfig& result) : result_(result) {}

  void file(const std::filesystem::path& path);
  // name stands for the text in messages; presets are looked for beside `path`, which may be empty.
  void text(std::string_view text, const std::string& name, const std::filesystem::path& path);
  void preset_from(std::span<const std::string> sets, const std::filesystem::path& config);  // first of all
  void sets(std::span<const std::string> sets);
  KeyPlaces places(const std::string& unsaid) const;  // unsaid: the place of a key that has its default
  bool all_read() const { return all_read_; }         // every file that was asked for, as TOML

  template <class... Args>
  void tell(std::string where, fmt::format_string<Args...> format, Args&&... args) {
    result_.faults.push_back({std::move(where), fmt::format(format, std::forward<Args>(args)...)});
  }

 private:
  struct Place {
    std::string where;
    int order = 0;
  };

  void table(const toml::table& table, const std::string& name, const std::filesystem::path& path);
  void entry(const std::string& section, std::string_view name, const toml::node& node, const std::string& where);
  void unknown_section(std::string_view name, const std::string& where);
  void unknown(const std::string& section, std::string_view name, const std::string& where);
  void assign(const ConfigKey& key, const toml::node& node, const std::string& where);
  void preset(const toml::node& node, const std::string& where, const std::filesystem::path& asking);

  LoadedConfig& result_;
  std::map<std::string, Place, std::less<>> places_;
  std::set<std::string, std::less<>> unsound_;
  std::vector<std::string> open_presets_;  // those being read, so that a circle is seen
  int order_ = 0;
  bool preset_set_ = false;  // by --set
  bool all_read_ = true;
};

}  // namespace switchyard
