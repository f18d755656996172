#include "data/prepare/encode_units.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

namespace switchyard {

std::vector<std::vector<std::int32_t>> encode_units(const Tokenizer& tokenizer, std::span<const Unit> units,
                                                    unsigned threads) {
  std::vector<std::vector<std::int32_t>> tokens(units.size());
  std::atomic<std::size_t> next = 0;
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto work = [&] {
    try {
      for (std::size_t i; (i = next.fetch_add(1)) < units.size();) tokens[i] = tokenizer.encode(units[i].text);
    } catch (...) {
      const std::lock_guard lock(failure_mutex);
      failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    const std::size_t useful = std::min<std::size_t>(threads, units.size());
    for (std::size_t i = 1; i < useful; ++i) helpers.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
  return tokens;
}

}  // namespace switchyard
