// The wire between the ranks of one group. Every call is collective over the group, made by all ranks in the same
// order, whatever the data (law 5): a rank with nothing to send or receive calls all the same.
//
// Words (as in LLNL/Aluminum): a call *returns* when its buffers may be touched again. Transports are virtual because a
// virtual call costs nothing beside a message. mpi.h makes one between processes, self.h that of a process alone.
#pragma once

#include "comm/base/dtype.h"
#include "comm/base/ids.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace switchyard {

enum class ReduceOp { Sum, Max, Min, BitOr };

// One message of a grouped exchange. Between a sender and a receiver messages match in order; sizes must agree.
struct SendPart {
  Rank to;
  const void* data;
  Bytes size;
};
struct ReceivePart {
  Rank from;
  void* data;
  Bytes size;
};

// Messages under way; their buffers belong to the transport until each has come to its end.
class Messages {
 public:
  virtual ~Messages() = default;  // gives up what has not come to its end: only for a job that ends
  // Gets things on and returns at once: whether all is done. The places (in `receives` of start()) of those that have
  // arrived since the last call are put behind `arrived`.
  virtual bool poll(std::vector<int>& arrived) = 0;
  virtual void wait() = 0;  // until all is done
};

// Memory that the ranks of one host have in common, a part of each.
class SharedMemory {
 public:
  virtual ~SharedMemory() = default;  // collective
  virtual std::byte* of(Rank rank) const = 0;
  virtual Bytes size() const = 0;  // of each rank's part
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual Rank rank() const = 0;
  virtual int size() const = 0;
  // What users call a rank of this group: its number in the world.
  virtual int world_rank(Rank rank) const = 0;

  // All messages of this call are in flight together; returns when all have been sent and received. Empty messages are
  // left out of the wire. A message to oneself is a copy.
  virtual void exchange(std::span<const SendPart> sends, std::span<const ReceivePart> receives) = 0;
  // The same without waiting, and without messages to oneself. Not collective by itself: between two ranks messages
  // match in the order in which they are started.
  virtual std::unique_ptr<Messages> start(std::span<const SendPart> sends, std::span<const ReceivePart> receives) = 0;
  // values: [per_rank * size()] -> result: [per_rank * size()], block r to and from rank r.
  virtual void all_to_all(const std::int64_t* values, std::int64_t* result, std::int64_t per_rank) = 0;
  // MPI_Alltoallv: rows of `row` bytes, counts[r] of them to rank r, one rank's after the other's, to themselves too.
  virtual void all_to_all_rows(const void* rows, std::span<const std::int64_t> counts, void* received,
                               std::span<const std::int64_t> received_counts, Bytes row) = 0;
  // In place. F32, F64, I32, I64, U8, U64. Integer sums are exact in any order; float sums are not.
  virtual void all_reduce(void* data, std::int64_t count, DType dtype, ReduceOp op) = 0;
  // in: [size() * per_rank], block r for rank r -> out: [per_rank], this rank's block reduced over all ranks. Types and
  // exactness are all_reduce's. `in` and `out` do not overlap.
  virtual void reduce_scatter(const void* in, void* out, std::int64_t per_rank, DType dtype, ReduceOp op) = 0;
  virtual void broadcast(void* data, Bytes size, Rank root) = 0;
  // In place. data: [size() * per_rank]; each rank gives its own block and gets those of the others.
  virtual void all_gather_in_place(void* data, Bytes per_rank) = 0;
  // Blocks of any sizes, in rank order. The result holds all of them.
  virtual std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) = 0;
  virtual void barrier() = 0;
  // A transport over a part of the ranks (those that give the same color), ordered by key, then rank. A negative color
  // gives nullptr. Collective over this transport.
  virtual std::unique_ptr<Transport> split(int color, int key) = 0;
  // The ranks that share this host's memory, collective.
  virtual std::unique_ptr<Transport> split_by_node() = 0;
  // `each` bytes of every rank, 64-byte aligned, contents undefined. Collective; nullptr, on all ranks alike, where
  // they do not all share one host's memory. Throws Error(Runtime) where the host has not so much to share.
  virtual std::unique_ptr<SharedMemory> share(Bytes each) = 0;
  // Gets on with what has been sent and may still be on its way out; for whoever waits otherwise than in a call.
  virtual void get_on() = 0;
};

}  // namespace switchyard
