#include "comm/device/cuda.h"

#include "comm/device/wait_cuda.h"
#include "comm/device/work_cuda.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

namespace switchyard {
namespace cuda {
namespace {

// What the host gives and takes goes through pinned memory: copies from anywhere else wait for the device.
class Staging {
 public:
  explicit Staging(std::int64_t size) {
    check(cudaMallocHost(&memory_, usize(size)), "cudaMallocHost");
    check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  // Never ends: see open_cuda().

  std::byte* memory() const { return static_cast<std::byte*>(memory_); }
  void copies_on(cudaStream_t stream) {
    check(cudaEventRecord(done_, stream), "cudaEventRecord");
    in_use_ = true;
  }
  void wait() {
    if (in_use_) wait_for(done_);
    in_use_ = false;
  }

 private:
  void* memory_ = nullptr;
  cudaEvent_t done_ = nullptr;
  bool in_use_ = false;
};

class CudaStream final : public Stream {
 public:
  // A hurried one's kernels go before those of other streams that wait for a place on the device.
  explicit CudaStream(bool hurried = false) {
    int lowest = 0;
    int highest = 0;
    if (hurried) check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "cudaDeviceGetStreamPriorityRange");
    check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest), "cudaStreamCreateWithPriority");
    check(cudaEventCreateWithFlags(&given_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  }
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;
  cudaStream_t get() const { return stream_; }
  void synchronize() override { wait_for(stream_); }
  void follow(Stream& other) override;

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t given_ = nullptr;  // what this stream had been given when another one was told to follow it
};

class CudaGraph final : public WorkGraph {
 public:
  // Takes the graph over.
  CudaGraph(cudaGraph_t graph, cudaStream_t stream) : stream_(stream) {
    const cudaError_t code = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    check(code, "cudaGraphInstantiate");
  }
  ~CudaGraph() override { cudaGraphExecDestroy(executable_); }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  void launch() override { check(cudaGraphLaunch(executable_, stream_), "cudaGraphLaunch"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t executable_ = nullptr;
};

CudaStream& as_cuda(Stream& stream) {
  auto* const cuda = dynamic_cast<CudaStream*>(&stream);
  require(cuda != nullptr, "a CUDA device was given another device's stream");
  return *cuda;
}
cudaStream_t native(Stream& stream) {
  return as_cuda(stream).get();
}

void CudaStream::follow(Stream& other) {
  CudaStream& before = as_cuda(other);
  check(cudaEventRecord(before.given_, before.stream_), "cudaEventRecord");
  check(cudaStreamWaitEvent(stream_, before.given_, 0), "cudaStreamWaitEvent");
}

// What ops of this thread work on; null: the main stream. There is one device a process.
thread_local CudaStream* other_stream = nullptr;

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(int index) : index_(index) {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    require(device == index, "cuda:{} was opened while cuda:{} is the current device", index, device);
    check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, index), "cudaDeviceGetAttribute");
    int major = 0;
    int minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index), "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index), "cudaDeviceGetAttribute");
    compute_capability_ = 10 * major + minor;
    for (int i = 0; i < 2; ++i) slots_.emplace_back(large);
    for (int i = 0; i < 64; ++i) small_slots_.emplace_back(small);
  }

  DeviceKind kind() const override { return DeviceKind::Cuda; }
  std::string name() const override { return fmt::format("cuda:{}", index_); }
  std::string identity() const override {
    char bus[32] = {};
    check(cudaDeviceGetPCIBusId(bus, sizeof(bus), index_), "cudaDeviceGetPCIBusId");
    return bus;
  }
  std::string model() const override {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, index_), "cudaGetDeviceProperties");
    return properties.name;
  }
  Bytes memory_in_use() const override {
    std::size_t free = 0;
    std::size_t total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return Bytes(static_cast<std::int64_t>(total - free));
  }
  int index() const { return index_; }
  int multiprocessors() const { return multiprocessors_; }
  int compute_capability() const { return compute_capability_; }
  cudaStream_t cuda_stream() const { return (other_stream == nullptr ? stream_ : *other_stream).get(); }

  void* allocate(Bytes bytes) override {
    require(bytes.value() >= 0, "asked for a memory block of {} bytes", bytes.value());
    if (bytes.value() == 0) return nullptr;
    refuse_in_capture("take memory");
    void* memory = nullptr;
    const cudaError_t code = cudaMalloc(&memory, usize(bytes.value()));
    if (code == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it is told here, and must not be found by the next call
      std::size_t free = 0;
      std::size_t total = 0;
      check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
      fail(ErrorKind::Runtime, "no memory for {:.1f} MiB on {}: {:.1f} of {:.1f} MiB are free",
           mebibytes(bytes.value()), name(), mebibytes(static_cast<std::int64_t>(free)),
           mebibytes(static_cast<std::int64_t>(total)));
    }
    check(code, "cudaMalloc");
    return memory;
  }
  void release(void* memory, Bytes) noexcept override {
    if (memory != nullptr) cudaFree(memory);
  }

  void fill(void* memory, int byte, Bytes bytes, Stream& stream) override {
    if (bytes.value() == 0) return;
    const DeviceWork work(*this, "fill", {.bytes = static_cast<double>(bytes.value())});
    check(cudaMemsetAsync(memory, byte, usize(bytes.value()), native(stream)), "cudaMemsetAsync");
  }

  void copy_to_host(void* host, const void* memory, Bytes bytes, Stream& stream) override {
    refuse_in_capture("copy to the host");
    const DeviceWork work(*this, "copies to the host", {.bytes = static_cast<double>(bytes.value())});
    const std::lock_guard lock(staging_);
    const cudaStream_t on = native(stream);
    auto* const to = static_cast<std::byte*>(host);
    const auto* const from = static_cast<const std::byte*>(memory);
    // The next piece is on its way while the one before it is copied out.
    const std::int64_t pieces = (bytes.value() + large - 1) / large;
    const auto size_of_piece = [&](std::int64_t i) { return usize(std::min(large, bytes.value() - i * large)); };
    for (std::int64_t i = 0; i <= pieces; ++i) {
      if (i < pieces) {
        Staging& slot = slots_[usize(i) % slots_.size()];
        slot.wait();
        check(cudaMemcpyAsync(slot.memory(), from + i * large, size_of_piece(i), cudaMemcpyDeviceToHost, on),
              "cudaMemcpyAsync");
        slot.copies_on(on);
      }
      if (i > 0) {
        Staging& slot = slots_[usize(i - 1) % slots_.size()];
        slot.wait();
        std::memcpy(to + (i - 1) * large, slot.memory(), size_of_piece(i - 1));
      }
    }
  }

  void copy_from_host(void* memory, const void* host, Bytes bytes, Stream& stream) override {
    refuse_in_capture("copy from the host");
    const DeviceWork work(*this, "copies from the host", {.bytes = static_cast<double>(bytes.value())});
    const std::lock_guard lock(staging_);
    // Lists have many slots, so that a host which gives them between kernels need not wait for the kernels.
    const bool is_list = bytes.value() <= 8 * small;
    const std::int64_t each = is_list ? small : large;
    for (std::int64_t begin = 0; begin < bytes.value(); begin += each) {
      Staging& slot =
          is_list ? small_slots_[next_small_++ % small_slots_.size()] : slots_[next_slot_++ % slots_.size()];
      slot.wait();
      const std::int64_t now = std::min(each, bytes.value() - begin);
      std::memcpy(slot.memory(), static_cast<const std::byte*>(host) + begin, usize(now));
      check(cudaMemcpyAsync(static_cast<std::byte*>(memory) + begin, slot.memory(), usize(now), cudaMemcpyHostToDevice,
                            native(stream)),
            "cudaMemcpyAsync");
      slot.copies_on(native(stream));
    }
  }

  void copy(void* to, const void* from, Bytes bytes, Stream& stream) override {
    if (bytes.value() == 0) return;
    const DeviceWork work(*this, "copy", {.bytes = 2 * static_cast<double>(bytes.value())});
    check(cudaMemcpyAsync(to, from, usize(bytes.value()), cudaMemcpyDeviceToDevice, native(stream)), "cudaMemcpyAsync");
  }

  Stream& stream() override { return other_stream == nullptr ? stream_ : *other_stream; }
  Stream& exchange_stream() override { return exchange_stream_; }

  std::unique_ptr<WorkGraph> capture(const std::function<void()>& work) override {
    const cudaStream_t stream = stream_.get();
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    captures_ = true;
    try {
      work();
    } catch (...) {
      captures_ = false;
      if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) cudaGraphDestroy(graph);
      cudaGetLastError();  // what went wrong is told already
      throw;
    }
    captures_ = false;
    check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    return std::make_unique<CudaGraph>(graph, stream);
  }

  void keep_record(bool keep) override {
    keeps_record_ = keep;
    if (keep && record_ == nullptr) record_ = std::make_unique<CudaWorkRecord>(stream_.get());
  }
  WorkRecord* record() override { return keeps_record_ && other_stream == nullptr ? record_.get() : nullptr; }

 protected:
  Stream* work_on(Stream* stream) override {
    CudaStream* const other = stream == nullptr || stream == &stream_ ? nullptr : &as_cuda(*stream);
    return std::exchange(other_stream, other);
  }

 private:
  void refuse_in_capture(const char* deed) const {
    require(!captures_, "{}: nothing may {} while its work is captured", name(), deed);
  }
  static double mebibytes(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

  int index_;
  int multiprocessors_ = 0;
  int compute_capability_ = 0;
  CudaStream stream_;
  CudaStream exchange_stream_{true};
  bool captures_ = false;
  bool keeps_record_ = false;
  std::unique_ptr<CudaWorkRecord> record_;
  std::mutex staging_;
  static constexpr std::int64_t large = 4 << 20, small = 128 << 10;
  std::deque<Staging> slots_, small_slots_;
  std::size_t next_slot_ = 0, next_small_ = 0;
};

const CudaDevice& cuda_device(const Device& device) {
  const auto* const ours = dynamic_cast<const CudaDevice*>(&device);
  require(ours != nullptr, "{} is no CUDA device", device.name());
  return *ours;
}

}  // namespace

void check(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return;
  fail(ErrorKind::Runtime, "{} failed: {} ({})", call, cudaGetErrorString(code), cudaGetErrorName(code));
}

void check_launch(const std::source_location& at) {
  const cudaError_t code = cudaGetLastError();
  if (code == cudaSuccess) return;
  fail(ErrorKind::Runtime, "a kernel could not be launched in {} ({}:{}): {} ({})", at.function_name(), at.file_name(),
       at.line(), cudaGetErrorString(code), cudaGetErrorName(code));
}

void allow_shared_memory(const void* kernel, std::size_t bytes, const std::source_location& at) {
  const cudaError_t code =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (code == cudaSuccess) return;
  fail(ErrorKind::Runtime, "a kernel of {} asks for {} bytes of shared memory: {}", at.function_name(), bytes,
       cudaGetErrorString(code));
}

cudaStream_t stream_of(const Device& device) {
  return cuda_device(device).cuda_stream();
}
cudaStream_t stream_of(const Device&, Stream& stream) {
  return native(stream);
}
int multiprocessors(const Device& device) {
  return cuda_device(device).multiprocessors();
}
int compute_capability(const Device& device) {
  return cuda_device(device).compute_capability();
}

}  // namespace cuda

namespace detail {

int check_cuda(int index) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();  // no driver and no GPU are told below
    count = 0;
  }
  if (index < count) return count;
  fail(ErrorKind::Usage, "device \"cuda:{}\" was asked for, but {}; use device \"cpu\", or see what nvidia-smi says",
       index,
       count == 0 ? "no GPU can be used here" : fmt::format("the GPUs here have the numbers 0 to {}", count - 1));
}

Device& open_cuda(int index) {
  static std::mutex guard;
  // A process works on one GPU, whose device lives as long as the process: at its end CUDA goes before statics do.
  static cuda::CudaDevice* device = nullptr;
  const std::lock_guard lock(guard);
  if (device == nullptr) {
    check_cuda(index);
    cuda::check(cudaSetDevice(index), "cudaSetDevice");
    device = new cuda::CudaDevice(index);
  }
  require(device->index() == index, "cuda:{} was asked for after {}: a process works on one GPU", index,
          device->name());
  return *device;
}

}  // namespace detail
}  // namespace switchyard
