#include "comm/base/shared_library.h"
#include "comm/device/wait_cuda.h"
#include "comm/device/wait_watch.h"
#include "comm/group/farewell.h"
#include "comm/transport/device_transport.h"
#include "comm/transport/waiting.h"

#include <chrono>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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

// One communicator, which this process may have to give up at any moment: what a kernel of NCCL's waits for never comes
// where another rank has gone. As NVIDIA's guide on fault tolerance has it, NCCL is asked never to block (so that it
// can be aborted at any point), errors are asked for wherever the host waits, and ncclCommAbort ends what is on the
// device. NCCL is called under a lock, by the thread that computes or by the one that ends the job.
class NcclTransport final : public DeviceTransport, private WaitWatch {
 public:
  NcclTransport(Transport& bootstrap, Device& device)
      : device_(device),
        stream_(cuda::stream_of(device, device.exchange_stream())),
        rank_(bootstrap.rank()),
        ranks_(bootstrap.size()),
        exceptions_(std::uncaught_exceptions()),
        farewell_([this] { give_up(); }) {
    ncclUniqueId id{};
    if (rank_ == Rank(0)) check_nccl(nccl().getUniqueId(&id), "ncclGetUniqueId");
    bootstrap.broadcast(&id, Bytes(sizeof(id)), Rank(0));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    locked([&] {
      check_nccl(nccl().commInitRankConfig(&communicator_, ranks_, id, rank_.value(), &config),
                 "ncclCommInitRankConfig");
    });
    try {
      settle("ncclCommInitRankConfig");
    } catch (const Error&) {
      give_up();
      throw;
    }
    begin_watch(*this);
  }

  // Finalising waits for all ranks, aborting for none: on a rank that fails nobody would answer.
  ~NcclTransport() override {
    end_watch(*this);
    for (const InFlight& exchange : in_flight_) spare_.push_back(exchange);
    for (const InFlight& exchange : spare_) {
      cudaEventDestroy(exchange.begun);
      cudaEventDestroy(exchange.ended);
    }
    if (std::uncaught_exceptions() > exceptions_ || !finalize()) give_up();
  }

  const char* name() const override { return "nccl"; }

  Ticket post(std::span<const SendPart> sends, std::span<const ReceivePart> receives,
              std::function<void()> first) override {
    forget_ended();
    InFlight now = take_events();
    now.number = ++posted_;
    now.bytes = 0;
    device_.exchange_stream().follow(device_.stream());
    const OnStream scope(device_, device_.exchange_stream());
    if (first) first();
    cuda::check(cudaEventRecord(now.begun, stream_), "cudaEventRecord");
    locked([&] {
      check_nccl(nccl().groupStart(), "ncclGroupStart");
      std::size_t own = 0;
      for (const SendPart& part : sends) {
        if (part.size.value() == 0) continue;
        if (part.to == rank_) {
          copy_to_self(part, receives, own);
          continue;
        }
        now.bytes += part.size.value();
        check_nccl(nccl().send(part.data, usize(part.size.value()), ncclUint8, part.to.value(), communicator_, stream_),
                   "ncclSend");
      }
      for (const ReceivePart& part : receives) {
        if (part.size.value() == 0 || part.from == rank_) continue;
        check_nccl(
            nccl().recv(part.data, usize(part.size.value()), ncclUint8, part.from.value(), communicator_, stream_),
            "ncclRecv");
      }
      check_nccl(nccl().groupEnd(), "ncclGroupEnd");
    });
    settle("ncclGroupEnd");
    cuda::check(cudaEventRecord(now.ended, stream_), "cudaEventRecord");
    in_flight_.push_back(now);
    return posted_;
  }

  void wait(Ticket ticket) override {
    for (const InFlight& exchange : in_flight_) {
      if (exchange.number != ticket) continue;
      cuda::check(cudaStreamWaitEvent(cuda::stream_of(device_), exchange.ended, 0), "cudaStreamWaitEvent");
      return;
    }
    require(ticket > 0 && ticket <= posted_, "exchange {} of {} is waited for", ticket, posted_);  // it has ended
  }

 private:
  // An exchange that the stream has not come to the end of, as far as is known.
  struct InFlight {
    Ticket number = 0;
    cudaEvent_t begun = nullptr;
    cudaEvent_t ended = nullptr;
    std::int64_t bytes = 0;  // that this rank sends
  };

  // The n-th message to oneself goes to the n-th place for one; empty ones do not count.
  void copy_to_self(const SendPart& part, std::span<const ReceivePart> receives, std::size_t& next) {
    while (next < receives.size() && (receives[next].from != rank_ || receives[next].size.value() == 0)) ++next;
    require(next < receives.size() && receives[next].size == part.size,
            "rank {} sends itself a message of {} bytes that it does not expect", rank_.value(), part.size.value());
    device_.copy(receives[next++].data, part.data, part.size, device_.stream());
  }

  // f() while nobody else uses the communicator. Once it has been given up there is nothing to come back for: the
  // thread that did so ends the process.
  template <class F>
  void locked(const F& f) {
    std::unique_lock lock(mutex_);
    while (given_up_) {
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::seconds(1));
      lock.lock();
    }
    f();
  }

  void give_up() {
    const std::lock_guard lock(mutex_);
    if (communicator_ == nullptr || std::exchange(given_up_, true)) return;
    nccl().commAbort(communicator_);
  }

  // The orderly end; false where NCCL has found an error by now.
  bool finalize() {
    try {
      locked([&] { check_nccl(nccl().commFinalize(communicator_), "ncclCommFinalize"); });
      settle("ncclCommFinalize");
    } catch (const Error&) {
      return false;
    }
    locked([&] { nccl().commDestroy(std::exchange(communicator_, nullptr)); });
    return true;
  }

  // What NCCL has found out by now; ncclInProgress where it still takes up what it was asked.
  ncclResult_t state(const char* call) {
    ncclResult_t state = ncclInProgress;
    locked([&] { check_nccl(nccl().commGetAsyncError(communicator_, &state), "ncclCommGetAsyncError"); });
    check_nccl(state, call);
    return state;
  }

  // Until what was asked of NCCL has been taken up; that it is done is for the stream to say.
  void settle(const char* call) {
    const Waiting waiting(call, ranks_, 0);
    while (state(call) == ncclInProgress) std::this_thread::yield();
  }

  // Asked while the host waits for the device, which waits for other ranks from the beginning of an exchange to its
  // end.
  void look() override {
    state("an exchange between GPUs");
    forget_ended();
    if (!waiting_ && !in_flight_.empty() && is_past(in_flight_.front().begun)) {
      waiting_.emplace("an exchange between GPUs", ranks_, in_flight_.front().bytes);
    }
  }
  void wait_ended() noexcept override { waiting_.reset(); }

  void forget_ended() {
    while (!in_flight_.empty() && is_past(in_flight_.front().ended)) {
      waiting_.reset();
      spare_.push_back(in_flight_.front());
      in_flight_.pop_front();
    }
  }
  static bool is_past(cudaEvent_t event) { return cuda::is_done(cudaEventQuery(event), "cudaEventQuery"); }

  InFlight take_events() {
    InFlight events;
    if (spare_.empty()) {
      cuda::check(cudaEventCreateWithFlags(&events.begun, cudaEventDisableTiming), "cudaEventCreateWithFlags");
      cuda::check(cudaEventCreateWithFlags(&events.ended, cudaEventDisableTiming), "cudaEventCreateWithFlags");
      return events;
    }
    events = spare_.back();
    spare_.pop_back();
    return events;
  }

  Device& device_;
  cudaStream_t stream_;
  Rank rank_;
  int ranks_;
  int exceptions_;
  std::mutex mutex_;  // of the next two, and of calls to NCCL
  ncclComm_t communicator_ = nullptr;
  bool given_up_ = false;
  Ticket posted_ = 0;
  std::deque<InFlight> in_flight_;
  std::vector<InFlight> spare_;
  std::optional<Waiting> waiting_;
  Farewell farewell_;
};

}  // namespace

bool has_nccl() {
  return library().is_there();
}

std::unique_ptr<DeviceTransport> make_nccl_transport(Transport& bootstrap, Device& device) {
  return std::make_unique<NcclTransport>(bootstrap, device);
}

}  // namespace switchyard
