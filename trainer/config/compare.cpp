#include "trainer/config/compare.h"

#include "trainer/config/schema.h"

#include <array>
#include <string_view>

namespace switchyard {
namespace {

ChangeKind kind_of(const std::string& section, const std::string& key) {
  constexpr std::array<std::string_view, 4> of_the_mixture = {"experts", "every", "shared_experts", "router"};
  if (section == "model") return key == "init_std" ? ChangeKind::Free : ChangeKind::Refused;
  if (section == "moe") {
    for (const std::string_view name : of_the_mixture) {
      if (key == name) return ChangeKind::Refused;
    }
    const bool of_the_layout = key == "max_received_rows" || key == "replicas" || key == "rebalance_every";
    return of_the_layout ? ChangeKind::Free : ChangeKind::Noted;
  }
  if (section == "exchange") return key == "chunks" ? ChangeKind::Free : ChangeKind::Noted;  // wires round
  if (section == "train") {
    if (key == "seed") return ChangeKind::Refused;
    return key.starts_with("eval_") || key == "recompute" || key == "graphs" ? ChangeKind::Free : ChangeKind::Noted;
  }
  if (section == "data") return key == "train" ? ChangeKind::Noted : ChangeKind::Free;
  return ChangeKind::Free;
}

}  // namespace

std::vector<ConfigChange> config_changes(const Config& was, const Config& is) {
  std::vector<ConfigChange> changes;
  for (const ConfigKey& key : config_keys()) {
    const std::string before = to_toml(key.get(was));
    const std::string now = to_toml(key.get(is));
    if (before == now) continue;
    const std::string section = key.section;
    changes.push_back({.key = section.empty() ? std::string(key.name) : section + "." + key.name,
                       .was = before,
                       .is = now,
                       .kind = kind_of(section, key.name)});
  }
  return changes;
}

}  // namespace switchyard
