// The loader's shuffle: a bijection of its own for each epoch, the same wherever it is computed.
#include "data/loader/loader.h"

#include "comm/base/ids.h"
#include "data/loader/permutation.h"
#include "data/loader/shard_writer.h"
#include "data/loader/token_shard.h"
#include "tests/support/catch.h"
#include "tests/support/files.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

using namespace switchyard;
using switchyard::test::error_of;
using switchyard::test::Scratch;

namespace {

template <class Shuffle>
bool is_bijection(const Shuffle& shuffle, std::int64_t n) {
  std::vector<bool> seen(usize(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t to = shuffle(i);
    if (to < 0 || to >= n || seen[usize(to)]) return false;
    seen[usize(to)] = true;
  }
  return true;
}

// How far a shuffle of n is from looking random, as the largest of three scores that are about normal for a true
// shuffle: fixed points, neighbours that stay neighbours, and the correlation of place and value.
template <class Shuffle>
double worst_score(const Shuffle& shuffle, std::int64_t n) {
  double fixed = 0, neighbours = 0, product = 0;
  const double mean = static_cast<double>(n - 1) / 2;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t to = shuffle(i);
    fixed += to == i;
    if (i > 0) neighbours += std::abs(to - shuffle(i - 1)) == 1;
    product += (static_cast<double>(i) - mean) * (static_cast<double>(to) - mean);
  }
  const auto size = static_cast<double>(n);
  const double variance = (size * size - 1) / 12;
  const double correlation = product / (size * variance) * std::sqrt(size - 1);
  return std::max({std::abs(fixed - 1), std::abs(neighbours - 2) / std::sqrt(2), std::abs(correlation)});
}

// Tokens 0, 1, 2, ...: a sequence shows where it was cut.
std::shared_ptr<const TokenShards> counting_shards(const Scratch& scratch, std::int32_t tokens, std::int64_t a_shard) {
  std::vector<std::int32_t> all(usize(tokens));
  std::iota(all.begin(), all.end(), 0);
  ShardWriter writer(scratch.path(), Split::Train, tokens, a_shard);
  writer.write(all);
  writer.finish();
  std::vector<TokenShard> shards;
  for (std::int64_t n = 0; n < writer.shards(); ++n) shards.emplace_back(scratch.path() / shard_name(Split::Train, n));
  return std::make_shared<TokenShards>(std::move(shards));
}

}  // namespace

TEST_CASE("the shuffle is a bijection for every size", "[loader]") {
  for (std::int64_t n = 1; n <= 300; ++n) {
    for (const std::uint64_t stream : {0, 1, 7}) {
      if (!is_bijection(Permutation(n, 42, stream), n)) FAIL(n << " elements, stream " << stream);
    }
  }
  for (const std::int64_t n : {4095, 4096, 4097, 65537, 300'001}) CHECK(is_bijection(Permutation(n, 3, 5), n));
  // Sizes that cannot be walked through: distinct values of distinct places, within the range.
  const std::int64_t huge = (std::int64_t{1} << 40) + 12345;
  std::set<std::int64_t> values;
  const Permutation shuffle(huge, 1, 1);
  for (std::int64_t i = 0; i < 10'000; ++i) values.insert(shuffle(huge - 1 - i * 1000));
  CHECK(values.size() == 10'000);
  CHECK(*values.begin() >= 0);
  CHECK(*values.rbegin() < huge);
  CHECK(*values.rbegin() - *values.begin() > huge / 2);

  CHECK_FALSE(is_bijection([](std::int64_t i) { return i / 2; }, 100));       // planted: not one to one
  CHECK_FALSE(is_bijection([](std::int64_t i) { return i * 3 % 99; }, 100));  // planted: not onto
  CHECK(error_of([] { Permutation(0, 1, 1); }).exit_code == 1);
  CHECK(error_of([] { Permutation(5, 1, 1)(5); }).exit_code == 1);
}

TEST_CASE("the shuffle looks shuffled", "[loader]") {
  for (const std::int64_t n : {1000, 1024, 5000, 65536}) {
    for (std::uint64_t stream = 0; stream < 20; ++stream) CHECK(worst_score(Permutation(n, 9, stream), n) < 7);
  }
  // Planted: orders that are bijections and no shuffle.
  CHECK(worst_score([](std::int64_t i) { return i; }, 1000) > 7);
  CHECK(worst_score([](std::int64_t i) { return 999 - i; }, 1000) > 7);
  CHECK(worst_score([](std::int64_t i) { return (i + 500) % 1000; }, 1000) > 7);
  CHECK(worst_score([](std::int64_t i) { return i ^ 1; }, 1000) > 7);
}

TEST_CASE("small shuffles reach every order about equally often", "[loader]") {
  std::map<std::vector<std::int64_t>, double> counts;
  constexpr int kDraws = 24'000;
  for (std::uint64_t stream = 0; stream < kDraws; ++stream) {
    const Permutation shuffle(4, 77, stream);
    ++counts[{shuffle(0), shuffle(1), shuffle(2), shuffle(3)}];
  }
  CHECK(counts.size() == 24);
  double chi_square = 0;
  for (const auto& [order, count] : counts)
    chi_square += (count - kDraws / 24.0) * (count - kDraws / 24.0) / (kDraws / 24.0);
  CHECK(chi_square < 60);  // 23 degrees of freedom: 60 is beyond the 99.99 % quantile
}

TEST_CASE("an epoch holds every sequence once, and epochs differ", "[loader]") {
  const Scratch scratch;
  constexpr std::int64_t kLength = 7;
  const auto shards = counting_shards(scratch, 1000, 64);
  const Loader loader(shards, kLength, 5);
  REQUIRE(loader.sequences() == 142);  // (1000 - 1) / 7
  std::vector<std::vector<std::int32_t>> orders(3);
  std::vector<std::int32_t> tokens(kLength + 1);
  for (std::int64_t sample = 0; sample < 3 * 142; ++sample) {
    loader.read(sample, tokens);
    for (std::size_t i = 0; i <= kLength; ++i) REQUIRE(tokens[i] == tokens[0] + static_cast<std::int32_t>(i));
    REQUIRE(tokens[0] % kLength == 0);
    orders[usize(sample / 142)].push_back(tokens[0]);
  }
  CHECK(orders[0] != orders[1]);
  CHECK(orders[1] != orders[2]);
  for (auto order : orders) {
    CHECK_FALSE(std::ranges::is_sorted(order));
    std::ranges::sort(order);
    for (std::size_t i = 0; i < order.size(); ++i) REQUIRE(order[i] == static_cast<std::int32_t>(i * kLength));
  }
  loader.read_in_order(141, tokens);
  CHECK(tokens.front() == 141 * 7);
  CHECK(tokens.back() == 142 * 7);
}

TEST_CASE("a sample hangs on seed and index alone", "[loader]") {
  const Scratch one, two;
  const Loader loader(counting_shards(one, 1000, 64), 7, 5);
  const Loader same(counting_shards(two, 1000, 1000), 7, 5);  // the cut into shards does not matter
  const Loader other(counting_shards(two, 1000, 1000), 7, 6);
  std::vector<std::int32_t> a(8), b(8);
  std::int64_t differ = 0;
  for (std::int64_t sample = 999; sample >= 0; sample -= 3) {  // in another order, with gaps
    loader.read(sample, a);
    same.read(sample, b);
    REQUIRE(a == b);
    other.read(sample, b);
    differ += a != b;
  }
  CHECK(differ > 300);
  // Golden: runs of other versions of this program see the same order.
  std::vector<std::int32_t> first;
  for (std::int64_t sample = 0; sample < 6; ++sample) {
    loader.read(sample, a);
    first.push_back(a[0] / 7);
  }
  CHECK(first == std::vector<std::int32_t>{4, 5, 87, 137, 65, 41});
}

TEST_CASE("too little data is told", "[loader]") {
  const Scratch scratch;
  const auto shards = counting_shards(scratch, 8, 64);
  CHECK(Loader(shards, 7, 1).sequences() == 1);
  const test::Told told = error_of([&] { Loader(shards, 8, 1); });
  CHECK(told.exit_code == 65);
  CHECK(told.message.find("8 tokens, and one sequence of 8 needs 9") != std::string::npos);
  CHECK(error_of([&] { Loader(std::make_shared<TokenShards>(std::vector<TokenShard>{}), 8, 1); }).exit_code == 65);
  std::vector<std::int32_t> tokens(8), wrong(7);
  CHECK(error_of([&] { Loader(shards, 7, 1).read(-1, tokens); }).exit_code == 1);
  CHECK(error_of([&] { Loader(shards, 7, 1).read(0, wrong); }).exit_code == 1);
  CHECK(error_of([&] { Loader(shards, 7, 1).read_in_order(1, tokens); }).exit_code == 1);
}
