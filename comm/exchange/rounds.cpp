#include "comm/exchange/rounds.h"

#include "comm/group/topology.h"

#include <algorithm>
#include <cstring>

namespace switchyard {
namespace {

// Distinct rows for each rank, by block of `block` rows.
std::vector<std::int64_t> block_loads(std::int64_t rows, int ranks, std::int64_t block, std::span<const Slot> slots) {
  std::vector<std::int64_t> loads(usize((rows + block - 1) / block * ranks), 0);
  std::vector<bool> counted(usize(rows * ranks), false);
  for (const Slot& slot : slots) {
    const std::size_t pair = usize(std::int64_t{slot.row} * ranks + slot.rank.value());
    if (counted[pair]) continue;
    counted[pair] = true;
    ++loads[usize(slot.row / block * ranks + slot.rank.value())];
  }
  return loads;
}

std::vector<std::vector<std::int64_t>> gather_loads(const Group& group, const std::vector<std::int64_t>& mine) {
  std::vector<std::vector<std::int64_t>> all;
  for (const std::vector<std::byte>& block : group.transport().all_gather(std::as_bytes(std::span(mine)))) {
    all.emplace_back(block.size() / sizeof(std::int64_t));
    if (!block.empty()) std::memcpy(all.back().data(), block.data(), block.size());
  }
  return all;
}

}  // namespace

std::vector<std::vector<std::int64_t>> make_rounds(const std::vector<std::vector<std::int64_t>>& loads, int ranks,
                                                   std::int64_t bound) {
  std::vector<std::vector<std::int64_t>> ends(1, std::vector<std::int64_t>(loads.size(), 0));
  std::vector<std::int64_t> received(usize(ranks), 0);
  const auto fits = [&](const std::vector<std::int64_t>& more, std::int64_t most) {
    for (std::size_t r = 0; r < received.size(); ++r) {
      if (received[r] + more[r] > most) return false;
    }
    return true;
  };
  const auto next_round = [&] {
    ends.push_back(ends.back());
    std::fill(received.begin(), received.end(), 0);
  };
  for (std::size_t s = 0; s < loads.size(); ++s) {
    const std::size_t blocks = loads[s].size() / usize(ranks);
    const auto load_of = [&](std::size_t b) {
      const auto begin = loads[s].begin() + isize(b) * ranks;
      return std::vector<std::int64_t>(begin, begin + ranks);
    };
    std::vector<std::int64_t> whole(usize(ranks), 0);
    for (std::size_t i = 0; i < loads[s].size(); ++i) whole[i % usize(ranks)] += loads[s][i];
    const bool is_small = std::all_of(whole.begin(), whole.end(), [&](std::int64_t load) { return load <= bound; });
    if (is_small && !fits(whole, bound)) next_round();
    for (std::size_t b = 0; b < blocks; ++b) {
      const std::vector<std::int64_t> load = load_of(b);
      if (!fits(load, bound)) next_round();
      for (std::size_t r = 0; r < received.size(); ++r) received[r] += load[r];
      ends.back()[s] = isize(b) + 1;
    }
  }
  return ends;
}

std::vector<std::int64_t> cut_rows(const Group& group, std::int64_t rows, std::span<const Slot> slots,
                                   const PlanOptions& options, bool& in_rounds) {
  in_rounds = false;
  if (options.max_received_rows > 0) {
    // A block is small enough to fill rounds well, and never too large for one.
    const std::int64_t block = std::max<std::int64_t>(options.max_received_rows / 4, 1);
    const auto loads = gather_loads(group, block_loads(rows, group.size(), block, slots));
    const auto ends = make_rounds(loads, group.size(), options.max_received_rows);
    if (ends.size() > 1) {
      in_rounds = true;
      std::vector<std::int64_t> begins(1, 0);
      for (const std::vector<std::int64_t>& end : ends) {
        begins.push_back(std::min(end[usize(group.rank().value())] * block, rows));
      }
      return begins;
    }
  }
  std::vector<std::int64_t> begins;
  for (int c = 0; c <= options.chunks; ++c) begins.push_back(rows * c / options.chunks);
  return begins;
}

}  // namespace switchyard
