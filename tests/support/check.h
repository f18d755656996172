// Checks of a rank test. An assertion that ends one rank alone hangs the others, so failures are collected, and
// check_all() makes every rank leave with the same code.
#pragma once

#include "comm/group/group.h"

#include <cstdio>
#include <string>
#include <utility>

#include <fmt/core.h>

namespace switchyard::test {

class Checks {
 public:
  explicit Checks(const Group& world) : world_(world) {}

  template <class... Args>
  void expect(bool holds, fmt::format_string<Args...> format, Args&&... args) {
    ++count_;
    if (holds) return;
    if (++failed_ <= 5) {
      std::fputs(
          fmt::format("rank {}: {}\n", world_.rank().value(), fmt::format(format, std::forward<Args>(args)...)).c_str(),
          stderr);
    }
  }

  // Collective. The exit code of the test on every rank; rank 0 prints the verdict.
  int finish() {
    std::int64_t totals[2] = {count_, failed_};
    world_.sum(std::span<std::int64_t>(totals, 2));
    if (world_.is_root()) fmt::print("{} passed, {} failed\n", totals[0] - totals[1], totals[1]);
    return totals[1] == 0 && totals[0] > 0 ? 0 : 1;
  }

 private:
  const Group& world_;
  std::int64_t count_ = 0;
  std::int64_t failed_ = 0;
};

}  // namespace switchyard::test
