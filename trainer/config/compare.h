// What differs between the config that a checkpoint was trained with and the one that is to go on.
#pragma once

#include "trainer/config/config.h"

#include <string>
#include <vector>

namespace switchyard {

enum class ChangeKind {
  Refused,  // the weights or the order of the data would mean something else
  Noted,    // the run goes on, but no longer as the uninterrupted one would have
  Free,     // where it runs, how often it saves and logs: the bits do not hang on it
};

struct ConfigChange {
  std::string key;  // "train.lr"
  std::string was;
  std::string is;
  ChangeKind kind = ChangeKind::Free;
};

// Both configs are resolved.
std::vector<ConfigChange> config_changes(const Config& was, const Config& is);

}  // namespace switchyard
