#include "trainer/loop/writers.h"

#include "comm/base/error.h"
#include "comm/base/ids.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

namespace switchyard {

std::vector<int> spread_writers(std::span<const std::int64_t> sizes, std::vector<std::int64_t> loads) {
  require(!loads.empty(), "{} tensors are to be written by no rank", sizes.size());
  std::vector<std::size_t> order(sizes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return sizes[a] > sizes[b]; });

  using Load = std::pair<std::int64_t, int>;  // bytes, rank
  std::priority_queue<Load, std::vector<Load>, std::greater<>> least;
  for (std::size_t rank = 0; rank < loads.size(); ++rank) least.emplace(loads[rank], static_cast<int>(rank));
  std::vector<int> writers(sizes.size());
  for (const std::size_t item : order) {
    auto [bytes, rank] = least.top();
    least.pop();
    writers[item] = rank;
    least.emplace(bytes + sizes[item], rank);
  }
  return writers;
}

}  // namespace switchyard
