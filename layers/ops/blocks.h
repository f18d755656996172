// Work on n elements, split into blocks of a fixed size that do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

namespace switchyard {

// f(block, begin, count) for each block of at most `size` elements, over all threads. f must not throw.
template <class F>
void for_blocks(std::int64_t n, std::int64_t size, const F& f) {
  const std::int64_t blocks = (n + size - 1) / size;
#pragma omp parallel for schedule(static) if (blocks > 1)
  for (std::int64_t block = 0; block < blocks; ++block) f(block, block * size, std::min(size, n - block * size));
}

}  // namespace switchyard
