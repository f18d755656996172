// Dropless routing may bring a rank any number of rows. Where they are more than a bound, they come in rounds: in each,
// some senders have their turn, in order, with some or all of their rows, so that no rank receives more than the bound.
// Whole senders are kept together where that is possible, since a sender's rows for one expert make one partial
// gradient.
#pragma once

#include "comm/exchange/plan.h"
#include "comm/group/group.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// loads[s][b * ranks + r]: rows that block b of sender s has for rank r. Result: [rounds][senders + 1...], the blocks
// of sender s in round i are [end[i - 1][s], end[i][s]) with end[-1] = 0. A block alone never exceeds the bound.
std::vector<std::vector<std::int64_t>> make_rounds(const std::vector<std::vector<std::int64_t>>& loads, int ranks,
                                                   std::int64_t bound);

// Where this rank's pieces of a plan begin, [pieces + 1]; collective where there is a bound. in_rounds: there are more
// rounds than one.
std::vector<std::int64_t> cut_rows(const Group& group, std::int64_t rows, std::span<const Slot> slots,
                                   const PlanOptions& options, bool& in_rounds);

}  // namespace switchyard
