#include "comm/transport/mpi.h"

#include "comm/transport/mpi_messages.h"
#include "comm/transport/mpi_shared_memory.h"
#include "comm/transport/waiting.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <numeric>
#include <string>
#include <utility>

namespace switchyard {
namespace {

MPI_Datatype mpi_type(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return MPI_FLOAT;
    case DType::F64:
      return MPI_DOUBLE;
    case DType::I32:
      return MPI_INT32_T;
    case DType::I64:
      return MPI_INT64_T;
    case DType::U8:
      return MPI_UINT8_T;
    case DType::U64:
      return MPI_UINT64_T;
    case DType::BF16:
    case DType::U16:
      break;
  }
  fail(ErrorKind::Runtime, "MPI cannot reduce elements of type {}", name_of(dtype));
}

MPI_Op mpi_op(ReduceOp op, DType dtype) {
  switch (op) {
    case ReduceOp::Sum:
      return MPI_SUM;
    case ReduceOp::Max:
      return MPI_MAX;
    case ReduceOp::Min:
      return MPI_MIN;
    case ReduceOp::BitOr:
      require(dtype != DType::F32 && dtype != DType::F64, "the bits of {} numbers cannot be reduced", name_of(dtype));
      return MPI_BOR;
  }
  fail(ErrorKind::Runtime, "unknown reduction {}", static_cast<int>(op));
}

struct DatatypeTraits {
  using Value = MPI_Datatype;
  static Value none() { return MPI_DATATYPE_NULL; }
  static void release(Value type) noexcept { MPI_Type_free(&type); }
};

// Counts as MPI wants them, and where each rank's rows begin.
struct RowCounts {
  explicit RowCounts(std::span<const std::int64_t> of) {
    for (const std::int64_t count : of) {
      counts.push_back(checked_int(count, "the rows for a rank"));
      begins.push_back(checked_int(total, "the rows for the ranks before"));
      total += count;
    }
  }
  std::vector<int> counts;
  std::vector<int> begins;
  std::int64_t total = 0;
};

class MpiTransport final : public Transport {
 public:
  MpiTransport(Communicator communicator, Bytes largest_message)
      : communicator_(std::move(communicator)), largest_(largest_message.value()) {
    require(largest_ >= size_of(DType::F64), "MPI messages of at most {} bytes hold no number", largest_);
    checked_int(largest_, "the largest MPI message");
    check_mpi(MPI_Comm_set_errhandler(comm(), MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(comm(), &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(comm(), &size_), "MPI_Comm_size");
    find_world_ranks();
  }

  Rank rank() const override { return Rank(rank_); }
  int size() const override { return size_; }
  int world_rank(Rank rank) const override { return world_rank_of_[usize(rank.value())]; }

  void exchange(std::span<const SendPart> sends, std::span<const ReceivePart> receives) override {
    const std::unique_ptr<MpiMessages> messages = start_others(sends, receives);
    copy_to_self(sends, receives);  // while the others travel
    messages->wait();
  }

  std::unique_ptr<Messages> start(std::span<const SendPart> sends, std::span<const ReceivePart> receives) override {
    for (const SendPart& part : sends) require(part.to.value() != rank_, "start() was given a message to oneself");
    for (const ReceivePart& part : receives) require(part.from.value() != rank_, "start() was given one from oneself");
    return start_others(sends, receives);
  }

  void all_to_all(const std::int64_t* values, std::int64_t* result, std::int64_t per_rank) override {
    const int count = checked_int(per_rank, "all_to_all's values per rank");
    const Waiting waiting("MPI_Alltoall", size_, per_rank * size_ * size_of(DType::I64));
    check_collective(MPI_Alltoall(values, count, MPI_INT64_T, result, count, MPI_INT64_T, comm()), "MPI_Alltoall");
  }

  void all_to_all_rows(const void* rows, std::span<const std::int64_t> counts, void* received,
                       std::span<const std::int64_t> received_counts, Bytes row) override {
    require(isize(counts.size()) == size_ && isize(received_counts.size()) == size_,
            "all_to_all_rows over {} ranks was given the counts of {} and {}", size_, counts.size(),
            received_counts.size());
    MPI_Datatype type = MPI_DATATYPE_NULL;  // so that MPI counts rows, of which there may be 2^31
    check_mpi(MPI_Type_contiguous(checked_int(row.value(), "the size of a row"), MPI_BYTE, &type),
              "MPI_Type_contiguous");
    const Handle<DatatypeTraits> row_type(type);
    check_mpi(MPI_Type_commit(&type), "MPI_Type_commit");
    const RowCounts out(counts);
    const RowCounts in(received_counts);
    const Waiting waiting("MPI_Alltoallv", size_, out.total * row.value());
    check_collective(MPI_Alltoallv(rows, out.counts.data(), out.begins.data(), type, received, in.counts.data(),
                                   in.begins.data(), type, comm()),
                     "MPI_Alltoallv");
  }

  void all_reduce(void* data, std::int64_t count, DType dtype, ReduceOp op) override {
    const MPI_Datatype type = mpi_type(dtype);
    const MPI_Op operation = mpi_op(op, dtype);
    if (size_ == 1) return;
    const std::int64_t most = largest_ / size_of(dtype);
    const Waiting waiting("MPI_Allreduce", size_, count * size_of(dtype));
    for (std::int64_t begin = 0; begin < count; begin += most) {
      const int now = checked_int(std::min(most, count - begin), "all_reduce's count");
      check_collective(MPI_Allreduce(MPI_IN_PLACE, static_cast<std::byte*>(data) + begin * size_of(dtype), now, type,
                                     operation, comm()),
                       "MPI_Allreduce");
    }
  }

  void reduce_scatter(const void* in, void* out, std::int64_t per_rank, DType dtype, ReduceOp op) override {
    const MPI_Datatype type = mpi_type(dtype);
    const MPI_Op operation = mpi_op(op, dtype);
    const std::int64_t element = size_of(dtype);
    const std::int64_t most = std::max<std::int64_t>(largest_ / (element * size_), 1);
    const Waiting waiting("MPI_Reduce_scatter_block", size_, per_rank * element * size_);
    for (std::int64_t begin = 0; begin < per_rank; begin += most) {
      const std::int64_t now = std::min(most, per_rank - begin);
      const void* blocks = in;
      if (now < per_rank) {
        window_.resize(usize(now * element * size_));
        for (int r = 0; r < size_; ++r) {
          std::memcpy(window_.data() + r * now * element,
                      static_cast<const std::byte*>(in) + (r * per_rank + begin) * element, usize(now * element));
        }
        blocks = window_.data();
      }
      check_collective(MPI_Reduce_scatter_block(blocks, static_cast<std::byte*>(out) + begin * element,
                                                checked_int(now, "reduce_scatter's count"), type, operation, comm()),
                       "MPI_Reduce_scatter_block");
    }
  }

  void all_gather_in_place(void* data, Bytes per_rank) override {
    std::byte* const blocks = static_cast<std::byte*>(data);
    const std::int64_t size = per_rank.value();
    const std::int64_t most = std::max<std::int64_t>(largest_ / size_, 1);
    const Waiting waiting("MPI_Allgather", size_, size);
    if (size <= most) {
      check_collective(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, blocks,
                                     checked_int(size, "all_gather_in_place's size"), MPI_BYTE, comm()),
                       "MPI_Allgather");
      return;
    }
    for (std::int64_t begin = 0; begin < size; begin += most) {
      const int now = checked_int(std::min(most, size - begin), "all_gather_in_place's size");
      window_.resize(usize(now) * usize(size_));
      check_collective(
          MPI_Allgather(blocks + rank_ * size + begin, now, MPI_BYTE, window_.data(), now, MPI_BYTE, comm()),
          "MPI_Allgather");
      for (int r = 0; r < size_; ++r) {
        std::memcpy(blocks + r * size + begin, window_.data() + std::int64_t{r} * now, usize(now));
      }
    }
  }

  void broadcast(void* data, Bytes size, Rank root) override {
    require(root.value() >= 0 && root.value() < size_, "broadcast from rank {} of {}", root.value(), size_);
    const Waiting waiting("MPI_Bcast", size_, size.value());
    for (std::int64_t begin = 0; begin < size.value(); begin += largest_) {
      const int now = checked_int(std::min(largest_, size.value() - begin), "broadcast's size");
      check_collective(MPI_Bcast(static_cast<std::byte*>(data) + begin, now, MPI_BYTE, root.value(), comm()),
                       "MPI_Bcast");
    }
  }

  std::vector<std::vector<std::byte>> all_gather(std::span<const std::byte> mine) override {
    const std::int64_t my_size = isize(mine.size());
    const std::vector<std::int64_t> sizes = gather_sizes(my_size);

    std::vector<std::vector<std::byte>> blocks(usize(size_));
    if (std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}) > largest_) {
      for (int r = 0; r < size_; ++r) {  // too much for the displacements of one call
        std::vector<std::byte>& block = blocks[usize(r)];
        if (r == rank_) block.assign(mine.begin(), mine.end());
        block.resize(usize(sizes[usize(r)]));
        broadcast(block.data(), Bytes(isize(block.size())), Rank(r));
      }
      return blocks;
    }
    std::vector<int> counts(usize(size_));
    std::vector<int> offsets(usize(size_));
    int total = 0;
    for (std::size_t r = 0; r < counts.size(); ++r) {
      counts[r] = checked_int(sizes[r], "all_gather's size");
      offsets[r] = total;
      total += counts[r];
    }
    std::vector<std::byte> all(usize(total));
    const Waiting waiting("MPI_Allgatherv", size_, my_size);
    check_collective(MPI_Allgatherv(mine.data(), checked_int(my_size, "all_gather's size"), MPI_BYTE, all.data(),
                                    counts.data(), offsets.data(), MPI_BYTE, comm()),
                     "MPI_Allgatherv");
    for (std::size_t r = 0; r < counts.size(); ++r) {
      blocks[r].assign(all.begin() + offsets[r], all.begin() + offsets[r] + counts[r]);
    }
    return blocks;
  }

  void barrier() override {
    const Waiting waiting("MPI_Barrier", size_, 0);
    check_collective(MPI_Barrier(comm()), "MPI_Barrier");
  }

  std::unique_ptr<Transport> split(int color, int key) override {
    MPI_Comm part = MPI_COMM_NULL;
    {
      const Waiting waiting("MPI_Comm_split", size_, 0);
      check_collective(MPI_Comm_split(comm(), color < 0 ? MPI_UNDEFINED : color, key, &part), "MPI_Comm_split");
    }
    return part == MPI_COMM_NULL ? nullptr : make_mpi_transport(Communicator(part), Bytes(largest_));
  }

  std::unique_ptr<Transport> split_by_node() override {
    MPI_Comm part = MPI_COMM_NULL;
    {
      const Waiting waiting("MPI_Comm_split_type", size_, 0);
      check_collective(MPI_Comm_split_type(comm(), MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &part),
                       "MPI_Comm_split_type");
    }
    return make_mpi_transport(Communicator(part), Bytes(largest_));
  }

  void get_on() override {
    int found = 0;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, MpiMessages::tag, comm(), &found, MPI_STATUS_IGNORE), "MPI_Iprobe");
  }

  std::unique_ptr<SharedMemory> share(Bytes each) override {
    std::int64_t fewest = 0;
    {
      MPI_Comm host = MPI_COMM_NULL;
      const Waiting waiting("MPI_Comm_split_type", size_, 0);
      check_collective(MPI_Comm_split_type(comm(), MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &host),
                       "MPI_Comm_split_type");
      const Communicator owner(host);
      int on_host = 0;
      check_mpi(MPI_Comm_size(host, &on_host), "MPI_Comm_size");
      fewest = on_host;
    }
    all_reduce(&fewest, 1, DType::I64, ReduceOp::Min);
    return fewest < size_ ? nullptr : make_mpi_shared_memory(comm(), each);
  }

 private:
  MPI_Comm comm() const { return communicator_.get(); }

  // The users' names of the ranks: those of the world, whatever the group.
  void find_world_ranks() {
    world_rank_of_.resize(usize(size_));
    std::vector<int> ours(usize(size_));
    std::iota(ours.begin(), ours.end(), 0);
    MPI_Group group = MPI_GROUP_NULL;
    MPI_Group world = MPI_GROUP_NULL;
    check_mpi(MPI_Comm_group(comm(), &group), "MPI_Comm_group");
    check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
    check_mpi(MPI_Group_translate_ranks(group, size_, ours.data(), world, world_rank_of_.data()),
              "MPI_Group_translate_ranks");
    MPI_Group_free(&group);
    MPI_Group_free(&world);
  }

  std::vector<std::int64_t> gather_sizes(std::int64_t mine) const {
    std::vector<std::int64_t> sizes(usize(size_));
    const Waiting waiting("MPI_Allgather", size_, size_of(DType::I64));
    check_collective(MPI_Allgather(&mine, 1, MPI_INT64_T, sizes.data(), 1, MPI_INT64_T, comm()), "MPI_Allgather");
    return sizes;
  }

  void check_collective(int code, const char* call) const {
    if (code != MPI_SUCCESS) [[unlikely]]
      mpi_failed(code, "{} over {} ranks failed on rank {}", call, size_, rank_);
  }

  void check_part(const char* verb, Rank peer, Bytes size) const {
    require(peer.value() >= 0 && peer.value() < size_ && size.value() >= 0,
            "rank {} is asked to {} rank {} of {} a message of {} bytes", rank_, verb, peer.value(), size_,
            size.value());
  }

  std::unique_ptr<MpiMessages> start_others(std::span<const SendPart> sends, std::span<const ReceivePart> receives) {
    auto messages = std::make_unique<MpiMessages>(comm(), rank_, world_rank_of_, largest_);
    for (std::size_t i = 0; i < receives.size(); ++i) {
      check_part("receive from", receives[i].from, receives[i].size);
      if (receives[i].from.value() != rank_) messages->start_receive(static_cast<int>(i), receives[i]);
    }
    for (const SendPart& part : sends) {
      check_part("send to", part.to, part.size);
      if (part.to.value() != rank_) messages->start_send(part);
    }
    return messages;
  }

  // The n-th message to oneself goes into the n-th place for one; empty ones do not count.
  void copy_to_self(std::span<const SendPart> sends, std::span<const ReceivePart> receives) const {
    auto place = receives.begin();
    const auto next_place = [&] {
      while (place != receives.end() && (place->from.value() != rank_ || place->size.value() == 0)) ++place;
    };
    for (const SendPart& part : sends) {
      if (part.to.value() != rank_ || part.size.value() == 0) continue;
      next_place();
      const std::int64_t expected = place == receives.end() ? 0 : place->size.value();
      require(expected == part.size.value(), "rank {} sends itself a message of {} bytes and expects one of {}", rank_,
              part.size.value(), expected);
      if (place->data != part.data) std::memcpy(place->data, part.data, usize(part.size.value()));
      ++place;
    }
    next_place();
    require(place == receives.end(), "rank {} expects a message from itself that it does not send", rank_);
  }

  Communicator communicator_;
  std::int64_t largest_;
  int rank_ = 0;
  int size_ = 1;
  std::vector<int> world_rank_of_;  // [size_]
  std::vector<std::byte> window_;   // the same part of every rank's block, where the whole is too much for one call
};

}  // namespace

void CommunicatorTraits::release(MPI_Comm communicator) noexcept {
  int ended = 0;
  if (std::uncaught_exceptions() > 0 || MPI_Finalized(&ended) != MPI_SUCCESS || ended != 0) return;
  MPI_Comm_free(&communicator);
}

std::string words_of_mpi(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return fmt::format("MPI error {}", code);
  return {text, usize(length)};
}

void check_mpi(int code, const char* call) {
  if (code != MPI_SUCCESS) [[unlikely]]
    mpi_failed(code, "{} failed", call);
}

std::unique_ptr<Transport> make_mpi_transport(Communicator communicator, Bytes largest_message) {
  return std::make_unique<MpiTransport>(std::move(communicator), largest_message);
}

}  // namespace switchyard
