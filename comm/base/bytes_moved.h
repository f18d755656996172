// How many bytes this process has read from files and written to them so far, by any of its threads: while that grows,
// a long load or save is alive, however long its main thread sets no mark of progress.
#pragma once

#include <atomic>
#include <cstdint>

namespace switchyard {

inline std::atomic<std::int64_t> bytes_moved_so_far = 0;  // use the functions

inline void note_bytes_moved(std::int64_t bytes) {
  bytes_moved_so_far.fetch_add(bytes, std::memory_order_relaxed);
}
inline std::int64_t bytes_moved() {
  return bytes_moved_so_far.load(std::memory_order_relaxed);
}

}  // namespace switchyard
