// RANKS 1 2 3 4 8
// Gradient sums over the world and over the holders of copies, any sets of ranks, against sums worked out on one rank.
#include "comm/group/environment.h"
#include "comm/reduce/copies.h"
#include "comm/reduce/gradients.h"
#include "comm/reduce/parts.h"
#include "tests/support/check.h"
#include "tests/support/copy_sets.h"

#include <algorithm>
#include <numeric>

namespace switchyard::test {
namespace {

// Sizes around every edge of the buckets: none, one, just small, just large, several to a bucket.
constexpr std::int64_t sizes[] = {0, 1, 3, 7, 8, 9, 31, 32, 33, 0, 5, 100, 1000, 2, 2, 0};

template <class T>
T gradient(int rank, std::size_t array, std::int64_t i) {
  return static_cast<T>((rank + 1) * (isize(array) + 2) * (i % 11 - 5));
}

template <class T>
std::int64_t differences(const Group& world, Bytes bucket, int culprit) {
  std::vector<std::vector<T>> values;
  std::vector<std::span<T>> spans;
  for (std::size_t a = 0; a < std::size(sizes); ++a) {
    values.emplace_back(usize(sizes[a]));
    for (std::int64_t i = 0; i < sizes[a]; ++i) values[a][usize(i)] = gradient<T>(world.rank().value(), a, i);
  }
  if (world.rank().value() == culprit) values[1][0] += 1;
  for (auto& array : values) spans.emplace_back(array);
  sum_gradients(world, spans, bucket);

  std::int64_t wrong = 0;
  for (std::size_t a = 0; a < std::size(sizes); ++a) {
    for (std::int64_t i = 0; i < sizes[a]; ++i) {
      T sum = 0;
      for (int r = 0; r < world.size(); ++r) sum += gradient<T>(r, a, i);
      wrong += values[a][usize(i)] == sum ? 0 : 1;
    }
  }
  return wrong;
}

void check_sums(const Group& world, Checks& checks) {
  for (const std::int64_t bucket : {8, 64, 256, 1024, 1 << 20}) {
    checks.expect(differences<std::int64_t>(world, Bytes(bucket), -1) == 0, "int64 sums, bucket {}", bucket);
    checks.expect(differences<float>(world, Bytes(bucket), -1) == 0, "float sums, bucket {}", bucket);
  }
  // Planted fault: one rank's gradient is off by one.
  checks.expect(differences<std::int64_t>(world, Bytes(64), world.size() - 1) == 1, "a wrong gradient went unseen");

  // Fixed point near its end: what float or double sums would lose is kept.
  std::vector<std::int64_t> large = {(std::int64_t{1} << 60) / world.size() + 1, -1};
  const std::vector<std::span<std::int64_t>> one = {large};
  sum_gradients(world, one);
  checks.expect(large[0] == ((std::int64_t{1} << 60) / world.size() + 1) * world.size() && large[1] == -world.size(),
                "large sums {}", large[0]);
}

// Sums by parts and what is gathered from parts, against a plain all-reduce. culprit: a rank that takes the element
// after its part for the last of it (the planted fault). Gives what this rank got wrong.
template <class T>
std::int64_t differences_of_parts(const Group& world, std::span<const Range> parts, Bytes bucket, int culprit) {
  const int me = world.rank().value();
  std::vector<std::vector<T>> values, sums;
  std::vector<std::vector<float>> gathered;
  std::vector<std::span<T>> value_spans, sum_spans;
  std::vector<std::span<float>> gathered_spans;
  for (std::size_t a = 0; a < std::size(sizes); ++a) {
    values.emplace_back();
    for (std::int64_t i = 0; i < sizes[a]; ++i) values[a].push_back(gradient<T>(me, a, i));
  }
  sums = values;
  for (auto& array : values) value_spans.emplace_back(array);
  for (auto& array : sums) sum_spans.emplace_back(array);
  sum_gradients(world, sum_spans);
  sum_parts(world, value_spans, parts, bucket);

  Range mine = parts[usize(me)];
  if (me == culprit) ++mine.end;
  std::int64_t wrong = 0;
  std::int64_t at = 0;
  for (std::size_t a = 0; a < std::size(sizes); ++a) {
    gathered.emplace_back(usize(sizes[a]), -1.0f);
    for (std::size_t i = 0; i < usize(sizes[a]); ++i, ++at) {
      if (at < mine.begin || at >= mine.end) continue;
      wrong += values[a][i] == sums[a][i] ? 0 : 1;
      gathered[a][i] = static_cast<float>(sums[a][i]);
    }
    gathered_spans.emplace_back(gathered[a]);
  }
  gather_parts(world, gathered_spans, parts, bucket);
  for (std::size_t a = 0; a < std::size(sizes); ++a) {
    for (std::size_t i = 0; i < usize(sizes[a]); ++i) wrong += gathered[a][i] == static_cast<float>(sums[a][i]) ? 0 : 1;
  }
  return wrong;
}

void check_parts(const Group& world, Checks& checks) {
  const std::int64_t total = std::accumulate(std::begin(sizes), std::end(sizes), std::int64_t{0});
  std::vector<std::vector<Range>> cuts;
  for (const std::int64_t block : {1, 8, 100, 10000}) cuts.push_back(cut_at_blocks(sizes, block, world.size()));
  // Parts that have nothing in common: all for one rank, first or last; larger and larger ones.
  cuts.emplace_back(usize(world.size()), Range{0, 0});
  cuts.back().back().end = total;
  cuts.emplace_back(usize(world.size()), Range{total, total});
  cuts.back().front().begin = 0;
  std::vector<Range> growing;
  for (int r = 0; r < world.size(); ++r) growing.push_back({total * r * r / 64, total * (r + 1) * (r + 1) / 64});
  growing.back().end = total;
  cuts.push_back(growing);
  for (const auto& parts : cuts) {
    for (const std::int64_t bucket : {8, 100, 1024, 1 << 20}) {
      checks.expect(differences_of_parts<std::int64_t>(world, parts, Bytes(bucket), -1) == 0, "int64, bucket {}",
                    bucket);
      checks.expect(differences_of_parts<float>(world, parts, Bytes(bucket), -1) == 0, "float, bucket {}", bucket);
    }
  }
  // Planted fault: rank 0 takes a window that is one element too long. Its own sum there is not the whole one.
  if (world.size() > 1) {
    const std::int64_t wrong = differences_of_parts<std::int64_t>(world, cuts[0], Bytes(100), 0);
    checks.expect((wrong > 0) == (world.rank().value() == 0), "a wrong window: {} differences", wrong);
  }

  // Parts that do not fit are refused, on all ranks alike.
  std::vector<std::int64_t> array(10);
  const std::vector<std::span<std::int64_t>> one = {array};
  for (const std::int64_t end : {9, 11}) {
    std::vector<Range> parts(usize(world.size()), Range{end, end});
    parts.front().begin = 0;
    bool refused = false;
    try {
      sum_parts(world, one, parts);
    } catch (const Error&) {
      refused = true;
    }
    checks.expect(refused, "parts that end at element {} of 10 were taken", end);
  }
}

// Elements that this rank has wrong, of the sums over each set's holders and of what they then gather from each other.
// culprit: a rank that contributes one element wrongly.
template <class T>
std::int64_t differences_of_copies(const Group& world, const std::vector<CopiesOfArrays>& sets, Bytes bucket,
                                   int culprit) {
  std::vector<std::vector<std::vector<T>>> values(sets.size());
  std::vector<std::vector<std::span<T>>> spans(sets.size());
  std::vector<HeldRange> ranges;
  for (std::size_t s = 0; s < sets.size(); ++s) {
    const CopiesOfArrays& set = sets[s];
    ranges.push_back({set.holders, set.parts});
    if (!std::binary_search(set.holders.begin(), set.holders.end(), world.rank())) continue;
    std::int64_t at = 0;
    for (const std::int64_t size : set.sizes) {
      values[s].emplace_back();
      for (std::int64_t i = 0; i < size; ++i)
        values[s].back().push_back(contribution<T>(world.rank().value(), s, at++));
    }
    if (world.rank().value() == culprit && at > 0) {
      for (auto& array : values[s]) {
        if (!array.empty()) array[0] += 1;
      }
    }
    for (auto& array : values[s]) spans[s].emplace_back(array);
  }
  sum_to_parts(world, ranges, spans, bucket);
  gather_from_parts(world, ranges, spans, bucket);
  std::int64_t wrong = 0;
  for (std::size_t s = 0; s < sets.size(); ++s) {
    std::int64_t at = 0;
    for (const auto& array : values[s]) {
      for (const T got : array) {
        wrong += got == sum_of_contributions<T>(sets[s], s, at) ? 0 : 1;
        ++at;
      }
    }
  }
  return wrong;
}

void check_copies(const Group& world, Checks& checks) {
  std::int64_t seen = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const std::vector<CopiesOfArrays> sets = random_sets(world.size(), seed);
    for (const std::int64_t bucket : {4, 100, 1000, 1 << 20}) {
      checks.expect(differences_of_copies<std::int64_t>(world, sets, Bytes(bucket), -1) == 0,
                    "int64 sums over the copies' holders, sets {}, bucket {}", seed, bucket);
      checks.expect(differences_of_copies<float>(world, sets, Bytes(bucket), -1) == 0,
                    "float sums over the copies' holders, sets {}, bucket {}", seed, bucket);
    }
    seen += differences_of_copies<std::int64_t>(world, sets, Bytes(100), world.size() - 1);
  }
  // Planted fault: the last rank's contributions are wrong. It may be no holder of some sets, but not of all.
  world.sum(std::span<std::int64_t>(&seen, 1));
  checks.expect(seen > 0, "a wrong contribution went unseen");
}

int run() {
  Environment env;
  Checks checks(env.world());
  check_sums(env.world(), checks);
  check_parts(env.world(), checks);
  check_copies(env.world(), checks);
  return checks.finish();
}

}  // namespace
}  // namespace switchyard::test

int main() {
  return switchyard::test::run();
}
