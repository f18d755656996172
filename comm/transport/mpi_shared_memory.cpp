#include "comm/transport/mpi_shared_memory.h"

#include "comm/transport/waiting.h"

#include <exception>
#include <utility>
#include <vector>

namespace switchyard {
namespace {

struct WindowTraits {
  using Value = MPI_Win;
  static Value none() { return MPI_WIN_NULL; }
  static void release(Value window) noexcept {
    int ended = 0;
    if (std::uncaught_exceptions() > 0 || MPI_Finalized(&ended) != MPI_SUCCESS || ended != 0) return;
    MPI_Win_unlock_all(window);
    MPI_Win_free(&window);
  }
};

class MpiSharedMemory final : public SharedMemory {
 public:
  MpiSharedMemory(Handle<WindowTraits> window, std::vector<std::byte*> parts, Bytes size)
      : window_(std::move(window)), parts_(std::move(parts)), size_(size) {}
  // All ranks give a window back together.
  ~MpiSharedMemory() override {
    const Waiting waiting("MPI_Win_free", static_cast<int>(parts_.size()), size_.value());
    window_.reset();
  }
  std::byte* of(Rank rank) const override { return parts_[usize(rank.value())]; }
  Bytes size() const override { return size_; }

 private:
  Handle<WindowTraits> window_;
  std::vector<std::byte*> parts_;
  Bytes size_;
};

}  // namespace

std::unique_ptr<SharedMemory> make_mpi_shared_memory(MPI_Comm communicator, Bytes each) {
  int ranks = 0;
  check_mpi(MPI_Comm_size(communicator, &ranks), "MPI_Comm_size");
  const std::int64_t size = (each.value() + 63) / 64 * 64;
  void* mine = nullptr;
  MPI_Win made = MPI_WIN_NULL;
  {
    const Waiting waiting("MPI_Win_allocate_shared", ranks, size);
    const int code = MPI_Win_allocate_shared(size, 1, MPI_INFO_NULL, communicator, &mine, &made);
    if (code != MPI_SUCCESS) {
      mpi_failed(code,
                 "the {} ranks of this host could not share {} bytes each (is /dev/shm large enough? "
                 "parallel.exchange = \"flat\" does without)",
                 ranks, size);
    }
  }
  Handle<WindowTraits> window(made);
  check_mpi(MPI_Win_lock_all(MPI_MODE_NOCHECK, made), "MPI_Win_lock_all");
  std::vector<std::byte*> parts;
  for (int r = 0; r < ranks; ++r) {
    MPI_Aint length = 0;
    int unit = 0;
    void* part = nullptr;
    check_mpi(MPI_Win_shared_query(made, r, &length, &unit, &part), "MPI_Win_shared_query");
    parts.push_back(static_cast<std::byte*>(part));
  }
  return std::make_unique<MpiSharedMemory>(std::move(window), std::move(parts), Bytes(size));
}

}  // namespace switchyard
