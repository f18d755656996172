// Which rank of an expert group owns which expert. Nothing but the owner's address hangs on it: a result never does.
#pragma once

#include "comm/group/topology.h"

#include <cstdint>

namespace switchyard {

class Placement {
 public:
  Placement(std::int64_t experts, int ranks) : experts_(experts), ranks_(ranks) {}

  std::int64_t experts() const { return experts_; }
  int ranks() const { return ranks_; }
  Rank owner(std::int64_t expert) const { return Rank(balanced_owner(experts_, ranks_, expert)); }
  Range local(Rank rank) const { return balanced_part(experts_, ranks_, rank.value()); }

 private:
  std::int64_t experts_;
  int ranks_;
};

}  // namespace switchyard
