// Which ranks of an expert group have which experts of one mixture layer. Nothing but the address of a copy hangs on
// it: a result never does.
//
// An expert has an owner or several, each with a copy of the same weights. All tokens of one micro-batch that chose an
// expert go to one copy of it, whichever rank that is, because their weight gradient is one partial (see
// comm/reduce/exact.h): the copy is a function of the expert and the sender alone.
#pragma once

#include "comm/base/ids.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// How many of `wanted` more copies there is room for: a copy never stands twice on a rank.
inline std::int64_t copies_that_fit(std::int64_t wanted, std::int64_t experts, int ranks) {
  return std::min(wanted, experts * (ranks - 1));
}

class Placement {
 public:
  // One owner each: consecutive experts on a rank, as many on each as can be (see balanced_part).
  Placement(std::int64_t experts, int ranks);
  // owners: [E], each ascending and not empty. node_of: [ranks], to prefer copies on the sender's own node.
  Placement(std::vector<std::vector<Rank>> owners, std::span<const Node> node_of);

  std::int64_t experts() const { return static_cast<std::int64_t>(owners_.size()); }
  int ranks() const { return static_cast<int>(local_.size()); }
  const std::vector<Rank>& owners(std::int64_t expert) const { return owners_[usize(expert)]; }
  const std::vector<std::int32_t>& local(Rank rank) const { return local_[usize(rank.value())]; }  // ascending

  // The copy that a sender's tokens use: the sender's own, or else one on its node, or else any; among those, the one
  // that has the fewest senders so far, so that they are spread evenly.
  Rank owner(std::int64_t expert, Rank sender) const { return copy_for_[usize(expert * ranks() + sender.value())]; }
  // How many of the group's ranks send to rank's copy of the expert; 0 where it has none.
  int senders(std::int64_t expert, Rank rank) const;

  bool operator==(const Placement&) const = default;

 private:
  std::vector<std::vector<Rank>> owners_;         // [experts]
  std::vector<std::vector<std::int32_t>> local_;  // [ranks]
  std::vector<Rank> copy_for_;                    // [experts, ranks]
};

// The copy that each rank uses of an expert with these owners, by Placement::owner's rule: [ranks].
std::vector<Rank> choose_copies(std::int64_t expert, std::span<const Rank> owners, std::span<const Node> node_of);

}  // namespace switchyard
