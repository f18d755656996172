#include "comm/reduce/copies.h"

#include "comm/device/device.h"
#include "comm/reduce/held_arrays.h"

#include <algorithm>

namespace switchyard {
namespace {

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
void receive_shares(const HeldArrays<T>& held, Range window, T* received, std::vector<ReceivePart>& receives) {
  held.for_others([&](int, Rank from) {
    held.arrays.for_parts(window, [&](T*, std::int64_t at, std::size_t count) {
      receives.push_back({from, received + at, Bytes(isize(count * sizeof(T)))});
    });
    received += window.size();
  });
}

template <class T>
void add_shares(const HeldArrays<T>& held, Range window, const T* received) {
  constexpr std::int64_t block = 4096;  // elements that are added while they are in the cache
  held.arrays.for_parts(window, [&](T* own, std::int64_t at, std::size_t elements) {
    const std::int64_t count = isize(elements);
#pragma omp parallel for schedule(static) if (count > 16 * block)
    for (std::int64_t begin = 0; begin < count; begin += block) {
      const std::int64_t size = std::min(block, count - begin);
      T sum[block];
      for (int h = 0; h <= held.others(); ++h) {
        const int among_others = h < held.me ? h : h - 1;
        const T* const share = h == held.me ? own + begin : received + among_others * window.size() + at + begin;
        for (std::int64_t i = 0; i < size; ++i) sum[i] = h == 0 ? share[i] : sum[i] + share[i];
      }
      std::copy_n(sum, size, own + begin);
    }
  });
}

// f(set, window) for those of a round that this rank is a holder of.
template <class T, class F>
void for_mine(const std::vector<HeldArrays<T>>& held, const std::vector<HeldWindow>& round, const F& f) {
  for (const HeldWindow& window : round) {
    if (held[window.set].me >= 0) f(held[window.set], window);
  }
}

template <class T>
void sum_windows(const Group& group, std::span<const HeldRange> sets, std::span<const std::vector<std::span<T>>> arrays,
                 Bytes bucket) {
  const std::int64_t room = std::max<std::int64_t>(bucket.value() / isize(sizeof(T)), 1);
  const auto held = held_arrays<T>(group.rank(), sets, arrays);
  Buffer memory;
  std::vector<SendPart> sends;
  std::vector<ReceivePart> receives;
  for (const std::vector<HeldWindow>& round : plan_rounds(group.size(), sets, room)) {
    std::int64_t elements = 0;
    for_mine(held, round, [&](const HeldArrays<T>& set, const HeldWindow& window) {
      elements += set.window(set.me, window).size() * set.others();
    });
    const Bytes bytes(elements * isize(sizeof(T)));
    if (memory.size() < bytes) {
      memory = Buffer();  // first: never two of them
      memory = Buffer(cpu_device(), bytes);
    }
    sends.clear();
    receives.clear();
    T* received = static_cast<T*>(memory.data());
    for_mine(held, round, [&](const HeldArrays<T>& set, const HeldWindow& window) {
      set.for_others([&](int h, Rank to) { send_window(set.arrays, set.window(h, window), to, sends); });
      const Range own = set.window(set.me, window);
      receive_shares(set, own, received, receives);
      received += own.size() * set.others();
    });
    group.transport().exchange(sends, receives);
    received = static_cast<T*>(memory.data());
    for_mine(held, round, [&](const HeldArrays<T>& set, const HeldWindow& window) {
      const Range own = set.window(set.me, window);
      add_shares(set, own, received);
      received += own.size() * set.others();
    });
  }
}

template <class T>
void gather_windows(const Group& group, std::span<const HeldRange> sets,
                    std::span<const std::vector<std::span<T>>> arrays, Bytes bucket) {
  const std::int64_t room = std::max<std::int64_t>(bucket.value() / isize(sizeof(T)), 1);
  const auto held = held_arrays<T>(group.rank(), sets, arrays);
  std::vector<SendPart> sends;
  std::vector<ReceivePart> receives;
  for (const std::vector<HeldWindow>& round : plan_rounds(group.size(), sets, room)) {
    sends.clear();
    receives.clear();
    for_mine(held, round, [&](const HeldArrays<T>& set, const HeldWindow& window) {
      set.for_others([&](int h, Rank peer) {
        send_window(set.arrays, set.window(set.me, window), peer, sends);
        set.arrays.for_parts(set.window(h, window), [&](T* elements, std::int64_t, std::size_t count) {
          receives.push_back({peer, elements, Bytes(isize(count * sizeof(T)))});
        });
      });
    });
    group.transport().exchange(sends, receives);
  }
}

}  // namespace

std::vector<std::vector<HeldWindow>> plan_rounds(int ranks, std::span<const HeldRange> sets, std::int64_t room) {
  constexpr std::int64_t whole = 64;  // elements: where windows begin, memory is well aligned for the widest accesses
  std::vector<std::vector<HeldWindow>> rounds;
  std::vector<std::size_t> round_of(usize(ranks), 0);  // the one that a rank's next window may go into
  std::vector<std::int64_t> fill(usize(ranks), 0);     // of that
  for (std::size_t s = 0; s < sets.size(); ++s) {
    const HeldRange& set = sets[s];
    const std::int64_t others = isize(set.holders.size()) - 1;
    if (others < 1) continue;
    std::int64_t longest = 0;
    for (const Range& part : set.parts) longest = std::max(longest, part.size());
    const std::int64_t equal = std::max<std::int64_t>(room / others, 1);
    const std::int64_t widest = equal <= whole ? equal : equal / whole * whole;
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
