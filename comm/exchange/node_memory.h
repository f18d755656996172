// Memory through which the ranks of a node hand each other rows: each writes into its own part and says how far it is,
// the others read. An operation uses one half of every part and the next one the other half, so that a rank may begin
// to write while others still read what it wrote before; it waits for those that are two operations behind.
#pragma once

#include "comm/group/group.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace switchyard {

class NodeMemory {
 public:
  // node: the ranks of one node. marks: how many things a rank can be at different points with. Collective.
  NodeMemory(const Group& node, int marks);

  // Does the node share memory at all? If not, nothing else may be called.
  bool is_shared() const { return marks_memory_ != nullptr; }

  // An operation begins, in the same order on all ranks of the node; `bytes`: the largest part that any rank needs in
  // it, the same on all of them. Memory that is too small is made anew, which is collective.
  void begin(std::int64_t bytes);
  std::byte* part(int local) const;  // 64-byte aligned; this operation's
  // This rank has written its thing number `mark` up to `count`. What it wrote before is then seen by who reads the
  // mark.
  void publish(int mark, std::int64_t count);
  std::int64_t published(int local, int mark) const;  // in this operation; 0 before the rank has begun it
  void end();                                         // this rank reads no more

 private:
  struct Marks;
  std::atomic<std::uint64_t>& mark_of(int local, int mark) const;
  void wait_for_the_slow(std::uint64_t operation);

  const Group& node_;
  int marks_;
  std::unique_ptr<SharedMemory> marks_memory_;
  std::unique_ptr<SharedMemory> rows_;
  std::int64_t half_ = 0;
  std::uint64_t operation_ = 0;
};

}  // namespace switchyard
