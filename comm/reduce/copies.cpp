#include "comm/reduce/copies.h"

#include "comm/base/error.h"
#include "comm/device/device.h"
#include "comm/reduce/flat_arrays.h"

#include <algorithm>
#include <numeric>

namespace switchyard {
namespace {

template <class T>
using Arrays = std::vector<std::span<T>>;

std::int64_t size_of_range(const HeldRange& set) {
  return set.parts.empty() ? 0 : set.parts.back().end;
}

// This rank's place among a set's holders; -1: it is none of them.
int place_in(const HeldRange& set, Rank rank) {
  const auto found = std::lower_bound(set.holders.begin(), set.holders.end(), rank);
  return found == set.holders.end() || *found != rank ? -1 : static_cast<int>(found - set.holders.begin());
}

Range window_of(Range part, const HeldWindow& window) {
  return {std::min(part.begin + window.begin, part.end), std::min(part.begin + window.begin + window.width, part.end)};
}

// A set of which this rank is a holder.
template <class T>
struct Mine {
  const HeldRange* set = nullptr;
  int me = -1;
  FlatArrays<T> arrays;
};

template <class T>
std::vector<Mine<T>> find_mine(const Group& group, std::span<const HeldRange> sets, std::span<const Arrays<T>> arrays) {
  require(sets.size() == arrays.size(), "{} sets of copies, but arrays of {}", sets.size(), arrays.size());
  std::vector<Mine<T>> mine;
  mine.reserve(sets.size());
  for (std::size_t s = 0; s < sets.size(); ++s) {
    require(sets[s].holders.size() == sets[s].parts.size(), "{} parts for {} holders", sets[s].parts.size(),
            sets[s].holders.size());
    mine.push_back({&sets[s], place_in(sets[s], group.rank()), FlatArrays<T>(arrays[s])});
    require(mine.back().me < 0 || mine.back().arrays.size() == size_of_range(sets[s]),
            "the parts of a set end at element {}, its arrays at {}", size_of_range(sets[s]),
            mine.back().arrays.size());
  }
  return mine;
}

// Messages to and from one peer's window, straight from the arrays: one for each array that it goes through.
template <class T>
void send_window(const FlatArrays<T>& arrays, Range window, Rank to, std::vector<SendPart>& sends) {
  arrays.for_parts(window, [&](T* elements, std::int64_t, std::size_t count) {
    sends.push_back({to, elements, Bytes(isize(count * sizeof(T)))});
  });
}

// The holders' shares of this rank's window: its own stays where it is, those of the others are in `received`, in the
// order of ranks. Cut where an array ends, as the messages were.
template <class T>
void receive_shares(const Mine<T>& mine, Range window, T* received, std::vector<ReceivePart>& receives) {
  for (int h = 0; h < isize(mine.set->holders.size()); ++h) {
    if (h == mine.me) continue;
    mine.arrays.for_parts(window, [&](T*, std::int64_t at, std::size_t count) {
      receives.push_back({mine.set->holders[usize(h)], received + at, Bytes(isize(count * sizeof(T)))});
    });
    received += window.size();
  }
}

template <class T>
void add_shares(const Mine<T>& mine, Range window, const T* received) {
  constexpr std::int64_t block = 4096;  // elements that are added while they are in the cache
  const int holders = static_cast<int>(mine.set->holders.size());
  mine.arrays.for_parts(window, [&](T* own, std::int64_t at, std::size_t elements) {
    const std::int64_t count = isize(elements);
#pragma omp parallel for schedule(static) if (count > 16 * block)
    for (std::int64_t begin = 0; begin < count; begin += block) {
      const std::int64_t size = std::min(block, count - begin);
      T sum[block];
      for (int h = 0; h < holders; ++h) {
        const int among_others = h < mine.me ? h : h - 1;
        const T* const share = h == mine.me ? own + begin : received + among_others * window.size() + at + begin;
        for (std::int64_t i = 0; i < size; ++i) sum[i] = h == 0 ? share[i] : sum[i] + share[i];
      }
      std::copy_n(sum, size, own + begin);
    }
  });
}

template <class T>
void sum_windows(const Group& group, std::span<const HeldRange> sets, std::span<const Arrays<T>> arrays, Bytes bucket) {
  const std::int64_t room = std::max<std::int64_t>(bucket.value() / isize(sizeof(T)), 1);
  const auto mine = find_mine(group, sets, arrays);
  Buffer memory;
  std::vector<SendPart> sends;
  std::vector<ReceivePart> receives;
  for (const std::vector<HeldWindow>& round : plan_rounds(group.size(), sets, room)) {
    std::int64_t elements = 0;
    for (const HeldWindow& window : round) {
      const Mine<T>& set = mine[window.set];
      if (set.me < 0) continue;
      elements += window_of(set.set->parts[usize(set.me)], window).size() * (isize(set.set->holders.size()) - 1);
    }
    const Bytes bytes(elements * isize(sizeof(T)));
    if (memory.size() < bytes) {
      memory = Buffer();  // first: never two of them
      memory = Buffer(cpu_device(), bytes);
    }
    sends.clear();
    receives.clear();
    T* received = static_cast<T*>(memory.data());
    for (const HeldWindow& window : round) {
      const Mine<T>& set = mine[window.set];
      if (set.me < 0) continue;
      for (int h = 0; h < isize(set.set->holders.size()); ++h) {
        const Range part = window_of(set.set->parts[usize(h)], window);
        if (h != set.me) send_window(set.arrays, part, set.set->holders[usize(h)], sends);
      }
      const Range own = window_of(set.set->parts[usize(set.me)], window);
      receive_shares(set, own, received, receives);
      received += own.size() * (isize(set.set->holders.size()) - 1);
    }
    group.transport().exchange(sends, receives);
    received = static_cast<T*>(memory.data());
    for (const HeldWindow& window : round) {
      const Mine<T>& set = mine[window.set];
      if (set.me < 0) continue;
      const Range own = window_of(set.set->parts[usize(set.me)], window);
      add_shares(set, own, received);
      received += own.size() * (isize(set.set->holders.size()) - 1);
    }
  }
}

template <class T>
void gather_windows(const Group& group, std::span<const HeldRange> sets, std::span<const Arrays<T>> arrays,
                    Bytes bucket) {
  const std::int64_t room = std::max<std::int64_t>(bucket.value() / isize(sizeof(T)), 1);
  const auto mine = find_mine(group, sets, arrays);
  std::vector<SendPart> sends;
  std::vector<ReceivePart> receives;
  for (const std::vector<HeldWindow>& round : plan_rounds(group.size(), sets, room)) {
    sends.clear();
    receives.clear();
    for (const HeldWindow& window : round) {
      const Mine<T>& set = mine[window.set];
      if (set.me < 0) continue;
      const Range own = window_of(set.set->parts[usize(set.me)], window);
      for (int h = 0; h < isize(set.set->holders.size()); ++h) {
        if (h == set.me) continue;
        const Rank peer = set.set->holders[usize(h)];
        send_window(set.arrays, own, peer, sends);
        const Range part = window_of(set.set->parts[usize(h)], window);
        set.arrays.for_parts(part, [&](T* elements, std::int64_t, std::size_t count) {
          receives.push_back({peer, elements, Bytes(isize(count * sizeof(T)))});
        });
      }
    }
    group.transport().exchange(sends, receives);
  }
}

}  // namespace

std::vector<std::vector<HeldWindow>> plan_rounds(int ranks, std::span<const HeldRange> sets, std::int64_t room) {
  std::vector<std::vector<HeldWindow>> rounds;
  std::vector<std::size_t> round_of(usize(ranks), 0);  // the one that a rank's next window may go into
  std::vector<std::int64_t> fill(usize(ranks), 0);     // of that
  for (std::size_t s = 0; s < sets.size(); ++s) {
    const HeldRange& set = sets[s];
    const std::int64_t others = isize(set.holders.size()) - 1;
    if (others < 1) continue;
    std::int64_t longest = 0;
    for (const Range& part : set.parts) longest = std::max(longest, part.size());
    const std::int64_t widest = std::max<std::int64_t>(room / others, 1);
    for (std::int64_t begin = 0; begin < longest; begin += widest) {
      const std::int64_t width = std::min(widest, longest - begin);
      std::size_t round = 0;
      for (const Rank holder : set.holders) round = std::max(round, round_of[usize(holder.value())]);
      const bool fits = std::all_of(set.holders.begin(), set.holders.end(), [&](Rank holder) {
        const std::size_t h = usize(holder.value());
        return round_of[h] < round || fill[h] == 0 || fill[h] + width * others <= room;
      });
      if (!fits) ++round;
      if (round >= rounds.size()) rounds.resize(round + 1);
      rounds[round].push_back({s, begin, width});
      for (const Rank holder : set.holders) {
        const std::size_t h = usize(holder.value());
        if (round_of[h] < round) fill[h] = 0;
        round_of[h] = round;
        fill[h] += width * others;
      }
    }
  }
  return rounds;
}

void sum_to_parts(const Group& group, std::span<const HeldRange> sets,
                  std::span<const std::vector<std::span<std::int64_t>>> arrays, Bytes bucket) {
  sum_windows<std::int64_t>(group, sets, arrays, bucket);
}
void sum_to_parts(const Group& group, std::span<const HeldRange> sets,
                  std::span<const std::vector<std::span<float>>> arrays, Bytes bucket) {
  sum_windows<float>(group, sets, arrays, bucket);
}
void gather_from_parts(const Group& group, std::span<const HeldRange> sets,
                       std::span<const std::vector<std::span<std::int64_t>>> arrays, Bytes bucket) {
  gather_windows<std::int64_t>(group, sets, arrays, bucket);
}
void gather_from_parts(const Group& group, std::span<const HeldRange> sets,
                       std::span<const std::vector<std::span<float>>> arrays, Bytes bucket) {
  gather_windows<float>(group, sets, arrays, bucket);
}
void gather_from_parts(const Group& group, std::span<const HeldRange> sets,
                       std::span<const std::vector<std::span<double>>> arrays, Bytes bucket) {
  gather_windows<double>(group, sets, arrays, bucket);
}

}  // namespace switchyard
