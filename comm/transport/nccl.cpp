#include "comm/base/handle.h"
#include "comm/device/cuda.h"
#include "comm/transport/device_transport.h"
#include "comm/transport/waiting.h"

#include <exception>
#include <thread>

#include <nccl.h>

namespace switchyard {
namespace {

void check_nccl(ncclResult_t code, const char* call) {
  if (code == ncclSuccess || code == ncclInProgress) return;
  fail(ErrorKind::Runtime, "{} failed: {}", call, ncclGetErrorString(code));
}

struct CommunicatorTraits {
  using Value = ncclComm_t;
  static Value none() { return nullptr; }
  // Destroying waits for all ranks, aborting for none: on a rank that fails nobody would answer.
  static void release(Value communicator) noexcept {
    if (std::uncaught_exceptions() > 0) {
      ncclCommAbort(communicator);
      return;
    }
    ncclCommFinalize(communicator);
    for (ncclResult_t state = ncclInProgress; state == ncclInProgress;) {
      if (ncclCommGetAsyncError(communicator, &state) != ncclSuccess) break;
      std::this_thread::yield();
    }
    ncclCommDestroy(communicator);
  }
};

class NcclTransport final : public DeviceTransport {
 public:
  NcclTransport(Transport& bootstrap, Device& device) : device_(device), rank_(bootstrap.rank()) {
    ncclUniqueId id{};
    if (bootstrap.rank() == Rank(0)) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    bootstrap.broadcast(&id, Bytes(sizeof(id)), Rank(0));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;  // so that a rank which never comes leaves the others able to speak
    ncclComm_t communicator = nullptr;
    check_nccl(ncclCommInitRankConfig(&communicator, bootstrap.size(), id, bootstrap.rank().value(), &config),
               "ncclCommInitRankConfig");
    communicator_ = Handle<CommunicatorTraits>(communicator);
    settle("ncclCommInitRankConfig", bootstrap.size());
  }

  const char* name() const override { return "nccl"; }

  void exchange(std::span<const SendPart> sends, std::span<const ReceivePart> receives) override {
    const cudaStream_t stream = cuda::stream_of(device_);
    check_nccl(ncclGroupStart(), "ncclGroupStart");
    std::size_t own = 0;
    for (const SendPart& part : sends) {
      if (part.size.value() == 0) continue;
      if (part.to == rank_) {
        copy_to_self(part, receives, own);
        continue;
      }
      check_nccl(ncclSend(part.data, usize(part.size.value()), ncclUint8, part.to.value(), communicator_.get(), stream),
                 "ncclSend");
    }
    for (const ReceivePart& part : receives) {
      if (part.size.value() == 0 || part.from == rank_) continue;
      check_nccl(
          ncclRecv(part.data, usize(part.size.value()), ncclUint8, part.from.value(), communicator_.get(), stream),
          "ncclRecv");
    }
    check_nccl(ncclGroupEnd(), "ncclGroupEnd");
    settle("ncclGroupEnd", static_cast<int>(receives.size()));
  }

 private:
  // The n-th message to oneself goes to the n-th place for one; empty ones do not count.
  void copy_to_self(const SendPart& part, std::span<const ReceivePart> receives, std::size_t& next) {
    while (next < receives.size() && (receives[next].from != rank_ || receives[next].size.value() == 0)) ++next;
    require(next < receives.size() && receives[next].size == part.size,
            "rank {} sends itself a message of {} bytes that it does not expect", rank_.value(), part.size.value());
    device_.copy(receives[next++].data, part.data, part.size, device_.stream());
  }

  // Until what was asked of NCCL has been taken up; that it is done is for the stream to say.
  void settle(const char* call, int ranks) {
    ncclResult_t state = ncclInProgress;
    const Waiting waiting(call, ranks, 0);
    while (true) {
      check_nccl(ncclCommGetAsyncError(communicator_.get(), &state), "ncclCommGetAsyncError");
      if (state != ncclInProgress) break;
      std::this_thread::yield();
    }
    check_nccl(state, call);
  }

  Device& device_;
  Rank rank_;
  Handle<CommunicatorTraits> communicator_;
};

}  // namespace

bool has_nccl() {
  return true;
}

std::unique_ptr<DeviceTransport> make_nccl_transport(Transport& bootstrap, Device& device) {
  return std::make_unique<NcclTransport>(bootstrap, device);
}

}  // namespace switchyard
