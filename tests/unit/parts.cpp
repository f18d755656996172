// How a flat range is cut into parts, and who writes what: pure functions, against their promises.
#include "comm/reduce/parts.h"

#include "tests/support/catch.h"
#include "trainer/loop/writers.h"
#include "trainer/optim/copies.h"

#include <algorithm>
#include <numeric>

namespace switchyard {
namespace {

using Sizes = std::vector<std::int64_t>;

std::int64_t sum(const Sizes& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
}

// Is an element the first of an array or of one of its blocks, or the end of all?
bool may_cut(const Sizes& sizes, std::int64_t block, std::int64_t at) {
  for (const std::int64_t size : sizes) {
    if (at < size) return at % block == 0;
    at -= size;
  }
  return at == 0;
}

// Consecutive from the beginning to the end, cut where they may be, no further from an equal share than a block.
bool right(const std::vector<Range>& cut, const Sizes& sizes, std::int64_t block, int parts) {
  const std::int64_t total = sum(sizes);
  if (isize(cut.size()) != parts || cut.front().begin != 0 || cut.back().end != total) return false;
  for (std::size_t p = 0; p < cut.size(); ++p) {
    if (cut[p].end < cut[p].begin || (p > 0 && cut[p].begin != cut[p - 1].end)) return false;
    if (!may_cut(sizes, block, cut[p].end)) return false;
    const double share = static_cast<double>(total) / parts;
    if (std::abs(static_cast<double>(cut[p].size()) - share) > static_cast<double>(block)) return false;
  }
  return true;
}

const std::vector<Sizes> kinds = {{},
                                  {0},
                                  {1},
                                  {5},
                                  {16, 16},
                                  {17, 0, 3},
                                  {0, 0, 100},
                                  {1, 1, 1, 1, 1, 1, 1},
                                  {1000, 24},
                                  {7, 160, 9},
                                  {48, 1, 2304, 48, 2304, 5}};

}  // namespace

TEST_CASE("parts are of equal size to within a block, and cut between blocks only") {
  for (const Sizes& sizes : kinds) {
    for (int parts = 1; parts <= 9; ++parts) {
      for (const std::int64_t block : {1, 4, 16, 4096}) {
        CAPTURE(sizes, parts, block);
        REQUIRE(right(cut_at_blocks(sizes, block, parts), sizes, block, parts));
      }
    }
  }
  // Sizes whose products with the number of parts leave 64 bits.
  const Sizes huge = {std::int64_t{1} << 60, 3, (std::int64_t{1} << 60) + 5};
  REQUIRE(right(cut_at_blocks(huge, 4096, 1000), huge, 4096, 1000));
  CHECK_THROWS_AS(cut_at_blocks(huge, 0, 1), Error);
  CHECK_THROWS_AS(cut_at_blocks(huge, 1, 0), Error);
}

TEST_CASE("planted faults: wrong cuts are seen") {
  const Sizes sizes = {48, 1, 2304, 48};
  std::vector<Range> cut = cut_at_blocks(sizes, 16, 4);
  REQUIRE(right(cut, sizes, 16, 4));
  SECTION("within a block") {
    ++cut[0].end;
    ++cut[1].begin;
  }
  SECTION("an element of two ranks") {
    cut[1].begin -= 16;
  }
  SECTION("a rank with too much") {
    cut[2].end += 32;
    cut[3].begin += 32;
  }
  REQUIRE_FALSE(right(cut, sizes, 16, 4));
}

TEST_CASE("the pieces of all parts are each element once, in order") {
  for (const Sizes& sizes : kinds) {
    for (int parts = 1; parts <= 5; ++parts) {
      Sizes reached(sizes.size(), 0);
      for (const Range& part : cut_at_blocks(sizes, 4, parts)) {
        std::int64_t here = 0;
        for (const Piece& piece : pieces_in(sizes, part)) {
          REQUIRE(piece.count > 0);
          REQUIRE(piece.offset == reached[piece.parameter]);
          REQUIRE(piece.offset % 4 == 0);
          reached[piece.parameter] += piece.count;
          here += piece.count;
        }
        REQUIRE(here == part.size());
      }
      REQUIRE(reached == sizes);
    }
  }
  const Sizes two = {10, 10};
  CHECK(pieces_in(two, {4, 15}) == std::vector<Piece>{{0, 4, 6}, {1, 0, 5}});
  CHECK(pieces_in(two, {5, 5}).empty());
}

TEST_CASE("writing is spread over the ranks by bytes") {
  // No rank has more than the least loaded one and the largest item together, unless it had so before.
  const auto even = [](const Sizes& sizes, const Sizes& before, const std::vector<int>& writers) {
    Sizes loads = before;
    for (std::size_t i = 0; i < sizes.size(); ++i) loads[usize(writers[i])] += sizes[i];
    const std::int64_t least = *std::min_element(loads.begin(), loads.end());
    const std::int64_t largest = sizes.empty() ? 0 : *std::max_element(sizes.begin(), sizes.end());
    for (std::size_t r = 0; r < loads.size(); ++r) {
      if (loads[r] > before[r] && loads[r] > least + largest) return false;
    }
    return true;
  };
  for (const Sizes& sizes : kinds) {
    for (std::size_t ranks = 1; ranks <= 9; ++ranks) {
      for (const std::int64_t step : {0, 100}) {
        Sizes loads(ranks);
        for (std::size_t r = 0; r < ranks; ++r) loads[r] = isize(r) * step;
        const std::vector<int> writers = spread_writers(sizes, loads);
        REQUIRE(writers.size() == sizes.size());
        REQUIRE(even(sizes, loads, writers));
        REQUIRE(writers == spread_writers(sizes, loads));
      }
    }
  }
  CHECK(spread_writers(Sizes{5, 9, 5, 1}, Sizes{0, 0, 3}) == std::vector<int>{1, 0, 2, 1});
  CHECK_FALSE(even({5, 9, 5, 1}, {0, 0, 3}, {0, 0, 0, 0}));  // planted: one rank writes all
  CHECK_THROWS_AS(spread_writers(Sizes{1}, Sizes{}), Error);
}

}  // namespace switchyard
