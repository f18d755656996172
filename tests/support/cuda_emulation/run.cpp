// Blocks one after the other, the threads of a block as fibers. The scheduler works warp by warp: it runs a warp's
// lanes until each of them stands at the block's barrier or has returned, and opens the barrier when all warps are
// there.
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/support/cuda_emulation/races.h"
#include "tests/support/cuda_emulation/streams.h"

#include <algorithm>
#include <bit>
#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <boost/context/fiber.hpp>
#include <cuda_runtime.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulation {
namespace {

using boost::context::fiber;

// AddressSanitizer wants to know which stack it is on: leaving() before a switch to the stack at `bottom`, arrived()
// after it, which gives the stack that was left.
#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t stack_bytes = 256 << 10;  // its frames are larger
void leaving(void** own, const void* bottom, std::size_t bytes) {
  __sanitizer_start_switch_fiber(own, bottom, bytes);
}
void arrived(void* own, const void** left_bottom, std::size_t* left_bytes) {
  __sanitizer_finish_switch_fiber(own, left_bottom, left_bytes);
}
#else
constexpr std::size_t stack_bytes = 64 << 10;
void leaving(void**, const void*, std::size_t) {}
void arrived(void*, const void**, std::size_t*) {}
#endif

constexpr std::size_t page = 4096;
constexpr std::size_t max_shared = 227 << 10;  // of sm_90
constexpr std::size_t shared_pages = (max_shared + page - 1) / page * page;
constexpr unsigned max_threads = 1024;

// The page at `guard_at` cannot be touched.
char* map_guarded(std::size_t bytes, std::size_t guard_at) {
  auto* const mapped = static_cast<char*>(
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (mapped == MAP_FAILED || ::mprotect(mapped + guard_at, page, PROT_NONE) != 0) {
    throw std::runtime_error("CUDA emulation: no memory for a fiber's stack or for shared memory");
  }
  return mapped;
}

enum class At { Running, WarpGather, BlockBarrier, Returned };

// A fiber that runs the body for one thread of one block after the other. Never destroyed, because destroying a fiber
// that waits throws through its frames.
struct Thread {
  fiber own, scheduler;
  const void* stack = nullptr;
  void* sanitizer = nullptr;  // what it keeps for this stack
  void* known_as = races::new_thread();
  unsigned block_barriers = 0, warp_barriers = 0;  // that it has passed in this block
  uint3 index{};
  unsigned number = 0;  // in its block
  At at = At::Returned;
  std::source_location place;
  const void* gives = nullptr;
  std::size_t gives_bytes = 0;
};

struct Warp {
  // Two of each, used in turn: a lane may be at the next gather while others still read what this one gave.
  alignas(16) char copies[2][warp_size][gather_bytes];
  WarpPointers pointers[2];
  unsigned turn = 0;
  char barriers[2] = {};  // places for races.h; those of one barrier are still taken when the next is given
};

struct Launch {
  const char* name = "";
  const std::function<void()>* body = nullptr;
  std::vector<Thread*> threads;
  std::vector<std::unique_ptr<Warp>> warps;
  char* shared = nullptr;
  std::size_t shared_bytes = 0;
  Thread* running = nullptr;
  void* sanitizer = nullptr;  // what it keeps for the scheduler's stack, which lies here:
  const void* scheduler_stack = nullptr;
  std::size_t scheduler_bytes = 0;
  bool backward = false;
  std::exception_ptr failure;
  void* scheduler_known_as = nullptr;
  char barriers[2] = {}, begin = 0, end = 0;  // places for races.h
};

struct StackAllocator {  // fibers are built in place on stacks that stay
  static void deallocate(boost::context::stack_context&) {}
};

struct Machine {
  std::mutex mutex;
  std::vector<Thread*> threads;
  std::vector<Thread*> stuck;  // in the middle of a kernel that failed
  std::vector<std::unique_ptr<Warp>> warps;
  char* shared = nullptr;
  unsigned launches = 0;
  std::optional<Launch> launch;
};
Machine& machine() {
  static Machine& only = *new Machine;
  return only;
}

std::string text_of(const std::source_location& place) {
  return std::string(place.file_name()) + ":" + std::to_string(place.line());
}

// From a thread back to the scheduler.
void back_to_scheduler(Thread& thread) {
  Launch* const launch = &*machine().launch;
  leaving(&thread.sanitizer, launch->scheduler_stack, launch->scheduler_bytes);
  races::switch_to(launch->scheduler_known_as);
  thread.scheduler = std::move(thread.scheduler).resume();
  Launch& now = *machine().launch;  // the next launch, perhaps
  arrived(thread.sanitizer, &now.scheduler_stack, &now.scheduler_bytes);
}

void fiber_loop(Thread& self) {
  arrived(nullptr, &machine().launch->scheduler_stack, &machine().launch->scheduler_bytes);
  for (;;) {
    Launch& launch = *machine().launch;
    races::take(&launch.begin);
    try {
      (*launch.body)();
    } catch (...) {
      launch.failure = std::current_exception();
    }
    races::give(&launch.end);
    self.at = At::Returned;
    back_to_scheduler(self);
  }
}

Thread* make_thread() {
  auto* const thread = new Thread;
  char* const memory = map_guarded(page + stack_bytes, 0);
  boost::context::stack_context stack;
  stack.size = stack_bytes;
  stack.sp = memory + page + stack_bytes;
  thread->stack = memory + page;
  const boost::context::preallocated place(stack.sp, stack.size, stack);
  thread->own = fiber(std::allocator_arg, place, StackAllocator{}, [thread](fiber&& scheduler) -> fiber {
    thread->scheduler = std::move(scheduler);
    fiber_loop(*thread);
    return {};
  });
  return thread;
}

// From the scheduler into a thread, until it waits or returns.
void go_on(Launch& launch, Thread& thread) {
  launch.running = &thread;
  threadIdx = thread.index;
  thread.at = At::Running;
  leaving(&launch.sanitizer, thread.stack, stack_bytes);
  races::switch_to(thread.known_as);
  thread.own = std::move(thread.own).resume();
  arrived(launch.sanitizer, nullptr, nullptr);
  launch.running = nullptr;
}

// A thread waits for others.
void wait(Thread& thread, At at, const std::source_location& place) {
  thread.at = at;
  thread.place = place;
  back_to_scheduler(thread);
}

std::string thread_text(const Thread& thread) {
  return "thread (" + std::to_string(thread.index.x) + ", " + std::to_string(thread.index.y) + ", " +
         std::to_string(thread.index.z) + ")";
}
std::string standing(const Thread& thread) {
  if (thread.at == At::Returned) return thread_text(thread) + " has returned";
  return thread_text(thread) +
         (thread.at == At::BlockBarrier ? " waits for the block at " : " waits for its warp at ") +
         text_of(thread.place);
}
[[noreturn]] void fail(const Launch& launch, const std::string& what) {
  throw std::logic_error(std::string("CUDA emulation: kernel ") + launch.name + ", block (" +
                         std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                         std::to_string(blockIdx.z) + "): " + what);
}
bool same_place(const std::source_location& a, const std::source_location& b) {
  return a.line() == b.line() &&
         (a.file_name() == b.file_name() || std::string_view(a.file_name()) == b.file_name());  // mostly one literal
}
// Threads that wait together must wait for the same thing.
void check_agree(const Launch& launch, const Thread& a, const Thread& b) {
  if (a.at != b.at || !same_place(a.place, b.place)) fail(launch, standing(a) + ", " + standing(b));
}

// Lets the lanes of one warp, which all stand at a gather, have what the others gave.
void exchange(Warp& warp, Thread* const* lanes, unsigned count) {
  const unsigned turn = warp.turn ^= 1;
  warp.pointers[turn].fill(nullptr);
  for (unsigned lane = 0; lane < count; ++lane) {
    if (lanes[lane]->at != At::WarpGather) continue;
    std::memcpy(warp.copies[turn][lane], lanes[lane]->gives, lanes[lane]->gives_bytes);
    warp.pointers[turn][lane] = warp.copies[turn][lane];
  }
}

// Runs a warp until its lanes stand at the block's barrier or have returned.
void run_warp(Launch& launch, Warp& warp, Thread* const* lanes, unsigned count) {
  for (;;) {
    const Thread* waiting = nullptr;
    for (unsigned i = 0; i < count; ++i) {
      Thread& thread = *lanes[launch.backward ? count - 1 - i : i];
      if (thread.at == At::Running) go_on(launch, thread);
      if (launch.failure) std::rethrow_exception(launch.failure);
      if (thread.at == At::Returned) continue;
      if (waiting != nullptr) check_agree(launch, *waiting, thread);
      waiting = &thread;
    }
    if (waiting == nullptr || waiting->at == At::BlockBarrier) return;
    exchange(warp, lanes, count);
    for (unsigned lane = 0; lane < count; ++lane) {
      if (lanes[lane]->at == At::WarpGather) lanes[lane]->at = At::Running;
    }
  }
}

std::uint64_t blocks_run = 0;

void run_block(Launch& launch) {
  ++blocks_run;
  std::memset(launch.shared, 0xff, launch.shared_bytes);
  const auto count = static_cast<unsigned>(launch.threads.size());
  const auto warps = static_cast<unsigned>(launch.warps.size());
  for (Thread* const thread : launch.threads) {
    thread->at = At::Running;
    thread->block_barriers = thread->warp_barriers = 0;
  }
  races::give(&launch.begin);
  for (;;) {
    for (unsigned i = 0; i < warps; ++i) {
      const unsigned w = launch.backward ? warps - 1 - i : i;
      run_warp(launch, *launch.warps[w], launch.threads.data() + w * warp_size,
               std::min(warp_size, count - w * warp_size));
    }
    const Thread& first = *launch.threads[0];
    for (const Thread* const thread : launch.threads) {
      if (thread->at != first.at)
        fail(launch, "not all threads reach a barrier: " + standing(first) + ", " + standing(*thread));
      if (first.at == At::BlockBarrier) check_agree(launch, first, *thread);
    }
    if (first.at == At::Returned) return races::take(&launch.end);
    for (Thread* const thread : launch.threads) thread->at = At::Running;
  }
}

// A fault inside a kernel says whose it is before it takes its way.
struct sigaction handler_before;
void tell_fault(int signal, siginfo_t* info, void*) {
  const Launch* const launch = machine().launch ? &*machine().launch : nullptr;
  if (launch != nullptr) {
    char text[512];
    const int length =
        std::snprintf(text, sizeof text,
                      "CUDA emulation: kernel %s, block (%u, %u, %u), thread (%u, %u, %u): fault at address %p%s\n",
                      launch->name, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z,
                      info->si_addr, touches_device_region(info->si_addr) ? " (device memory's region)" : "");
    if (::write(STDERR_FILENO, text, static_cast<std::size_t>(std::min<int>(length, sizeof text - 1))) < 0) {
      // There is nobody left to tell.
    }
  }
  ::sigaction(signal, &handler_before, nullptr);
}
class FaultTeller {
 public:
  FaultTeller() {
    struct sigaction action {};
    action.sa_sigaction = tell_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(SIGSEGV, &action, &handler_before);
  }
  ~FaultTeller() { ::sigaction(SIGSEGV, &handler_before, nullptr); }
  FaultTeller(const FaultTeller&) = delete;
  FaultTeller& operator=(const FaultTeller&) = delete;
};

bool possible(const dim3& grid, const dim3& block, std::size_t shared_bytes) {
  const auto within = [](unsigned n, unsigned most) { return n >= 1 && n <= most; };
  return within(grid.x, 0x7fffffff) && within(grid.y, 65535) && within(grid.z, 65535) && within(block.x, max_threads) &&
         within(block.y, max_threads) && within(block.z, 64) &&
         std::uint64_t(block.x) * block.y * block.z <= max_threads && shared_bytes <= max_shared;
}

// The fibers and buffers of a launch. A launch that fails leaves fibers that wait in the middle of a kernel: they are
// not used again.
class LaunchScope {
 public:
  LaunchScope(Machine& m, const char* name, const dim3& block, std::size_t shared_bytes,
              const std::function<void()>& body)
      : machine_(m) {
    Launch& launch = m.launch.emplace();
    launch.name = name;
    launch.body = &body;
    launch.scheduler_known_as = races::this_thread();
    const unsigned count = block.x * block.y * block.z;
    for (unsigned i = 0; i < count; ++i) {
      Thread* thread = nullptr;
      if (m.threads.empty()) {
        thread = make_thread();
      } else {
        thread = m.threads.back();
        m.threads.pop_back();
      }
      thread->number = i;
      thread->index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
      launch.threads.push_back(thread);
    }
    while (launch.warps.size() * warp_size < count) {
      if (m.warps.empty()) m.warps.push_back(std::make_unique<Warp>());
      launch.warps.push_back(std::move(m.warps.back()));
      m.warps.pop_back();
    }
    if (m.shared == nullptr) m.shared = map_guarded(shared_pages + page, shared_pages);
    launch.shared_bytes = shared_bytes;
    launch.shared = m.shared + shared_pages - (shared_bytes + 15) / 16 * 16;
    // Thue and Morse's sequence has no period: no kernel of a repeated list is always met by the same order.
    launch.backward = std::popcount(m.launches++) % 2 != 0;
    blockDim = block;
  }
  ~LaunchScope() {
    for (Thread* const thread : machine_.launch->threads) {
      (thread->at == At::Returned ? machine_.threads : machine_.stuck).push_back(thread);
    }
    for (auto& warp : machine_.launch->warps) machine_.warps.push_back(std::move(warp));
    machine_.launch.reset();
  }
  LaunchScope(const LaunchScope&) = delete;
  LaunchScope& operator=(const LaunchScope&) = delete;

 private:
  Machine& machine_;
};

Thread& self(const std::source_location& place) {
  Machine& m = machine();
  if (!m.launch || m.launch->running == nullptr) {
    throw std::logic_error("CUDA emulation: device code was called outside a kernel at " + text_of(place));
  }
  return *m.launch->running;
}

}  // namespace

namespace {
void run_now(const char* name, const dim3& grid, const dim3& block, std::size_t shared_bytes,
             const std::function<void()>& body) {
  Machine& m = machine();
  const std::lock_guard lock(m.mutex);
  const OpenMemory open;
  const FaultTeller teller;
  const LaunchScope scope(m, name, block, shared_bytes, body);
  const races::NotLookedAt scheduler;
  gridDim = grid;
  const std::uint64_t blocks = std::uint64_t(grid.x) * grid.y * grid.z;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const std::uint64_t b = m.launch->backward ? blocks - 1 - i : i;
    blockIdx = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
    run_block(*m.launch);
  }
}
}  // namespace

void run(CUstream_st* stream, const std::string& name, const dim3& grid, const dim3& block, std::size_t shared_bytes,
         std::function<void()> body) {
  if (!possible(grid, block, shared_bytes)) {
    set_last_error(cudaErrorInvalidConfiguration);
    return;
  }
  on_stream(stream, [=, body = std::move(body)] { run_now(name.c_str(), grid, block, shared_bytes, body); });
}

void* dynamic_shared() {
  self(std::source_location::current());
  return machine().launch->shared;
}

std::size_t dynamic_shared_bytes() {
  return machine().launch->shared_bytes;
}

unsigned thread_number() {
  return self(std::source_location::current()).number;
}

unsigned threads_of_block() {
  return static_cast<unsigned>(machine().launch->threads.size());
}

std::uint64_t block_serial() {
  return blocks_run;
}

void block_barrier(const std::source_location& place) {
  Thread& thread = self(place);
  char* const here = &machine().launch->barriers[thread.block_barriers++ % 2];
  races::give(here);
  wait(thread, At::BlockBarrier, place);
  races::take(here);
}

void warp_barrier(const std::source_location& place) {
  Thread& thread = self(place);
  char* const here = &machine().launch->warps[thread.number / warp_size]->barriers[thread.warp_barriers++ % 2];
  races::give(here);
  warp_gather("", 1, place);
  races::take(here);
}

const WarpPointers& warp_gather(const void* mine, std::size_t bytes, const std::source_location& place) {
  Thread& thread = self(place);
  if (bytes > gather_bytes) fail_in_kernel("a lane gives more bytes than a gather takes", place);
  thread.gives = mine;
  thread.gives_bytes = bytes;
  Warp& warp = *machine().launch->warps[thread.number / warp_size];
  wait(thread, At::WarpGather, place);
  return warp.pointers[warp.turn];
}

unsigned lane() {
  return self(std::source_location::current()).number % warp_size;
}

void fail_in_kernel(const char* what, const std::source_location& place) {
  fail(*machine().launch, thread_text(self(place)) + " at " + text_of(place) + ": " + what);
}

}  // namespace cuda_emulation
