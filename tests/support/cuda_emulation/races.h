// What ThreadSanitizer must know of a kernel's threads, where kernels are compiled with it (SWITCHYARD_RACES): which of
// them runs, and which of their accesses a barrier orders. It then tells of two accesses to the same memory, shared or
// not, that the threads of a block make without one. Blocks are not compared with each other.
//
// The emulation itself is compiled without it, and what the C library does for it is not looked at either: what the
// scheduler reads and writes is no access of a kernel.
#pragma once

#ifdef SWITCHYARD_RACES
#include <sanitizer/tsan_interface.h>

extern "C" {  // of the runtime; declared in no header of GCC's
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace cuda_emulation::races {

#ifdef SWITCHYARD_RACES
inline void* new_thread() {
  return __tsan_create_fiber(0);
}
inline void* this_thread() {
  return __tsan_get_current_fiber();
}
// Directly before the switch of stacks; orders nothing.
inline void switch_to(void* thread) {
  __tsan_switch_to_fiber(thread, __tsan_switch_to_fiber_no_sync);
}
// What this thread has done before it gives at a place comes before what any does after it takes there.
inline void give(void* place) {
  __tsan_release(place);
}
inline void take(void* place) {
  __tsan_acquire(place);
}
class NotLookedAt {
 public:
  NotLookedAt() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~NotLookedAt() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
  NotLookedAt(const NotLookedAt&) = delete;
  NotLookedAt& operator=(const NotLookedAt&) = delete;
};
#else
inline void* new_thread() {
  return nullptr;
}
inline void* this_thread() {
  return nullptr;
}
inline void switch_to(void*) {}
inline void give(void*) {}
inline void take(void*) {}
struct NotLookedAt {
  NotLookedAt() {}  // or it would be an unused variable
};
#endif

}  // namespace cuda_emulation::races
