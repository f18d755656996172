#include "comm/base/handle.h"
#include "comm/base/shared_library.h"
#include "comm/device/cuda.h"
#include "comm/transport/device_transport.h"
#include "comm/transport/waiting.h"

#include <exception>
#include <string>
#include <thread>

#include <nccl.h>

namespace switchyard {
namespace {

// The functions of NCCL, which is loaded when the first transport is made.
struct Nccl {
  decltype(::ncclCommAbort)* commAbort = nullptr;
  decltype(::ncclCommDestroy)* commDestroy = nullptr;
  decltype(::ncclCommFinalize)* commFinalize = nullptr;
  decltype(::ncclCommGetAsyncError)* commGetAsyncError = nullptr;
  decltype(::ncclCommInitRankConfig)* commInitRankConfig = nullptr;
  decltype(::ncclGetErrorString)* getErrorString = nullptr;
  decltype(::ncclGetUniqueId)* getUniqueId = nullptr;
  decltype(::ncclGroupEnd)* groupEnd = nullptr;
  decltype(::ncclGroupStart)* groupStart = nullptr;
  decltype(::ncclRecv)* recv = nullptr;
  decltype(::ncclSend)* send = nullptr;

  explicit Nccl(const SharedLibrary& library) {
    library.find("ncclCommAbort", commAbort);
    library.find("ncclCommDestroy", commDestroy);
    library.find("ncclCommFinalize", commFinalize);
    library.find("ncclCommGetAsyncError", commGetAsyncError);
    library.find("ncclCommInitRankConfig", commInitRankConfig);
    library.find("ncclGetErrorString", getErrorString);
    library.find("ncclGetUniqueId", getUniqueId);
    library.find("ncclGroupEnd", groupEnd);
    library.find("ncclGroupStart", groupStart);
    library.find("ncclRecv", recv);
    library.find("ncclSend", send);
  }
};
const SharedLibrary& library() {
  static const SharedLibrary nccl("libnccl.so." + std::to_string(NCCL_MAJOR));
  return nccl;
}
const Nccl& nccl() {
  static const Nccl functions(library());
  return functions;
}

void check_nccl(ncclResult_t code, const char* call) {
  if (code == ncclSuccess || code == ncclInProgress) return;
  fail(ErrorKind::Runtime, "{} failed: {}", call, nccl().getErrorString(code));
}

struct CommunicatorTraits {
  using Value = ncclComm_t;
  static Value none() { return nullptr; }
  // Destroying waits for all ranks, aborting for none: on a rank that fails nobody would answer.
  static void release(Value communicator) noexcept {
    if (std::uncaught_exceptions() > 0) {
      nccl().commAbort(communicator);
      return;
    }
    nccl().commFinalize(communicator);
    for (ncclResult_t state = ncclInProgress; state == ncclInProgress;) {
      if (nccl().commGetAsyncError(communicator, &state) != ncclSuccess) break;
      std::this_thread::yield();
    }
    nccl().commDestroy(communicator);
  }
};

class NcclTransport final : public DeviceTransport {
 public:
  NcclTransport(Transport& bootstrap, Device& device) : device_(device), rank_(bootstrap.rank()) {
    ncclUniqueId id{};
    if (bootstrap.rank() == Rank(0)) check_nccl(nccl().getUniqueId(&id), "ncclGetUniqueId");
    bootstrap.broadcast(&id, Bytes(sizeof(id)), Rank(0));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;  // so that a rank which never comes leaves the others able to speak
    ncclComm_t communicator = nullptr;
    check_nccl(nccl().commInitRankConfig(&communicator, bootstrap.size(), id, bootstrap.rank().value(), &config),
               "ncclCommInitRankConfig");
    communicator_ = Handle<CommunicatorTraits>(communicator);
    settle("ncclCommInitRankConfig", bootstrap.size());
  }

  const char* name() const override { return "nccl"; }

  void exchange(std::span<const SendPart> sends, std::span<const ReceivePart> receives) override {
    const cudaStream_t stream = cuda::stream_of(device_);
    check_nccl(nccl().groupStart(), "ncclGroupStart");
    std::size_t own = 0;
    for (const SendPart& part : sends) {
      if (part.size.value() == 0) continue;
      if (part.to == rank_) {
        copy_to_self(part, receives, own);
        continue;
      }
      check_nccl(
          nccl().send(part.data, usize(part.size.value()), ncclUint8, part.to.value(), communicator_.get(), stream),
          "ncclSend");
    }
    for (const ReceivePart& part : receives) {
      if (part.size.value() == 0 || part.from == rank_) continue;
      check_nccl(
          nccl().recv(part.data, usize(part.size.value()), ncclUint8, part.from.value(), communicator_.get(), stream),
          "ncclRecv");
    }
    check_nccl(nccl().groupEnd(), "ncclGroupEnd");
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
      check_nccl(nccl().commGetAsyncError(communicator_.get(), &state), "ncclCommGetAsyncError");
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
  return library().is_there();
}

std::unique_ptr<DeviceTransport> make_nccl_transport(Transport& bootstrap, Device& device) {
  return std::make_unique<NcclTransport>(bootstrap, device);
}

}  // namespace switchyard
