#include "comm/exchange/node_memory.h"

#include "comm/transport/patience.h"
#include "comm/transport/waiting.h"

#include <algorithm>
#include <limits>

namespace switchyard {
namespace {

// A mark is the number of the operation and the count in one word, so that both are seen together.
constexpr int count_bits = 32;
constexpr std::int64_t line = 64;

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);  // and so it works between processes

}  // namespace

NodeMemory::NodeMemory(const Group& node, int marks)
    : node_(node),
      marks_(marks + 1),  // the last one: operations that the rank has ended
      marks_memory_(node.transport().share(Bytes(marks_ * isize(sizeof(std::uint64_t))))) {
  for (int mark = 0; is_shared() && mark < marks_; ++mark) mark_of(node_.rank().value(), mark) = 0;
  node_.barrier();  // nobody reads before all are zero
}

std::atomic<std::uint64_t>& NodeMemory::mark_of(int local, int mark) const {
  return reinterpret_cast<std::atomic<std::uint64_t>*>(marks_memory_->of(Rank(local)))[mark];
}

void NodeMemory::begin(std::int64_t bytes) {
  ++operation_;
  const std::int64_t wanted = (bytes + line - 1) / line * line;
  if (wanted > half_) {
    wait_for_the_slow(operation_ - 1);
    rows_ = nullptr;  // first give back, then take
    half_ = std::max(wanted, half_ + half_ / 2);
    rows_ = node_.transport().share(Bytes(2 * half_));
    require(rows_ != nullptr, "the {} ranks of a node do not share memory any more", node_.size());
  } else if (operation_ > 2) {
    wait_for_the_slow(operation_ - 2);
  }
}

void NodeMemory::wait_for_the_slow(std::uint64_t operation) {
  for (int local = 0; local < node_.size(); ++local) {
    const std::atomic<std::uint64_t>& ended = mark_of(local, marks_ - 1);
    if (ended.load(std::memory_order_acquire) >= operation) continue;
    const std::atomic<int> peer = node_.transport().world_rank(Rank(local));
    const Waiting waiting("shared memory in use", peer);
    while (ended.load(std::memory_order_acquire) < operation) {
      node_.transport().get_on();  // it may wait for what this rank has sent
      pause_in_a_wait();
    }
  }
}

std::byte* NodeMemory::part(int local) const {
  return half_ == 0 ? nullptr : rows_->of(Rank(local)) + (operation_ % 2 == 0 ? 0 : half_);
}

void NodeMemory::publish(int mark, std::int64_t count) {
  require(count >= 0 && count <= std::numeric_limits<std::int32_t>::max(), "{} rows of one rank in shared memory",
          count);
  mark_of(node_.rank().value(), mark)
      .store(operation_ << count_bits | static_cast<std::uint64_t>(count), std::memory_order_release);
}

std::int64_t NodeMemory::published(int local, int mark) const {
  const std::uint64_t value = mark_of(local, mark).load(std::memory_order_acquire);
  // Whoever is further than this operation has ended it, and so has published all of it.
  const std::uint64_t operation = value >> count_bits;
  const std::uint64_t ours = operation_ & (~std::uint64_t{0} >> count_bits);
  if (operation == ours) return static_cast<std::int64_t>(value & (~std::uint64_t{0} >> count_bits));
  return mark_of(local, marks_ - 1).load(std::memory_order_acquire) >= operation_
             ? std::numeric_limits<std::int64_t>::max()
             : 0;
}

void NodeMemory::end() {
  mark_of(node_.rank().value(), marks_ - 1).store(operation_, std::memory_order_release);
}

}  // namespace switchyard
