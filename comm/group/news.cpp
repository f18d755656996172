#include "comm/group/news.h"

#include <algorithm>
#include <cmath>

namespace switchyard {
namespace {

// A word is a figure, and below it the rank, counted from the top so that the largest word has the first rank.
constexpr std::int64_t ranks_at_most = 1 << 22;
constexpr std::int64_t figure_at_most = (std::int64_t{1} << 40) - 1;  // microseconds: 12 days

std::int64_t word(std::int64_t figure, Rank rank) {
  return std::clamp<std::int64_t>(figure, 0, figure_at_most) * ranks_at_most + (ranks_at_most - 1 - rank.value());
}
std::int64_t figure_of(std::int64_t word) {
  return word / ranks_at_most;
}
Rank rank_of(std::int64_t word) {
  return Rank(static_cast<int>(ranks_at_most - 1 - word % ranks_at_most));
}

std::int64_t microseconds(double seconds) {
  return std::llround(std::clamp(seconds, 0.0, 1e6) * 1e6);
}
double seconds_of(std::int64_t figure) {
  return static_cast<double>(figure) * 1e-6;
}
News::Most most(std::int64_t word) {
  return {.seconds = seconds_of(figure_of(word)), .rank = rank_of(word)};
}

}  // namespace

NewsWords pack_news(Rank rank, const RankNews& mine) {
  require(rank.value() >= 0 && rank.value() < ranks_at_most, "rank {} of more than {}", rank.value(), ranks_at_most);
  return {word(static_cast<std::int64_t>(mine.stop), rank), word(microseconds(mine.step_s), rank),
          word(microseconds(mine.busy_s), rank), word(microseconds(mine.gap_s), rank),
          word(figure_at_most - microseconds(mine.busy_s), rank)};
}

News unpack_news(const NewsWords& largest) {
  News news;
  news.stop = static_cast<StopReason>(figure_of(largest[0]));
  news.stop_rank = rank_of(largest[0]);
  news.step = most(largest[1]);
  news.busy = most(largest[2]);
  news.gap = most(largest[3]);
  news.least_busy_s = seconds_of(figure_at_most - figure_of(largest[4]));
  return news;
}

News share_news(const Group& world, const RankNews& mine) {
  NewsWords words = pack_news(world.rank(), mine);
  world.transport().all_reduce(words.data(), isize(words.size()), DType::I64, ReduceOp::Max);
  return unpack_news(words);
}

}  // namespace switchyard
