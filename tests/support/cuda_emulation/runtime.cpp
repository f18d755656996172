// The runtime's calls. Work on the null stream and on the first one that is made (a device's main stream) is done at
// once. On any other it waits until something synchronises with it, so that a missing synchronisation shows: what has
// not been waited for has not been done, and memory that it reads may be used for something else before it does. With
// CUDA_EMULATION_LAZY in the environment that goes for all streams.
#include "tests/support/cuda_emulation/device_memory.h"
#include "tests/support/cuda_emulation/streams.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

using namespace cuda_emulation;
using Clock = std::chrono::steady_clock;

struct CUstream_st {
  std::deque<std::function<void()>> work;
  std::int64_t given = 0, done = 0;
  CUgraph_st* capture = nullptr;  // what is given goes there
  bool lazy = false;
};
struct CUgraph_st {
  std::vector<std::function<void()>> work;
  bool broken = false;  // something was asked for that a stream which is captured cannot do
};
struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};
struct CUevent_st {
  CUstream_st* stream = nullptr;  // on which it was recorded last
  std::int64_t at = 0;            // how much of that stream's work stands before it
  Clock::time_point time;
};

namespace {

constexpr int multiprocessors = 4;  // few, so that loops over the grid go round more than once

// 9.0, or what CUDA_EMULATION_CAPABILITY says: 80 for 8.0.
int compute_capability() {
  const char* const wanted = std::getenv("CUDA_EMULATION_CAPABILITY");
  return wanted == nullptr ? 90 : std::atoi(wanted);
}

struct Runtime {
  std::recursive_mutex mutex;
  bool lazy = false;
  cudaError_t last = cudaSuccess;
  CUstream_st default_stream;
  std::set<CUstream_st*> streams{&default_stream};
  bool has_main = false;  // a stream has been made
  std::map<void*, std::size_t> pinned;
};
Runtime& runtime() {
  static Runtime& only = []() -> Runtime& {
    auto& made = *new Runtime;
    made.lazy = std::getenv("CUDA_EMULATION_LAZY") != nullptr;
    made.default_stream.lazy = made.lazy;
    return made;
  }();
  return only;
}

using Lock = std::lock_guard<std::recursive_mutex>;

CUstream_st* real(cudaStream_t stream) {
  return stream == nullptr ? &runtime().default_stream : stream;
}

cudaError_t told(cudaError_t error) {
  if (error != cudaSuccess) runtime().last = error;
  return error;
}

void work_off(CUstream_st& stream, std::int64_t until) {
  while (stream.done < until && !stream.work.empty()) {
    const std::function<void()> work = std::move(stream.work.front());
    stream.work.pop_front();
    ++stream.done;
    work();
  }
}
void work_off(CUstream_st& stream) {
  work_off(stream, stream.given);
}
void work_off_all() {
  for (CUstream_st* const stream : std::set(runtime().streams)) work_off(*stream);
}

// Whoever waits for a stream, or takes or gives back memory, ends what is captured.
bool breaks_capture(const CUstream_st& stream) {
  if (stream.capture == nullptr) return false;
  stream.capture->broken = true;
  return true;
}
bool breaks_any_capture() {
  bool any = false;
  for (const CUstream_st* const stream : runtime().streams) any |= breaks_capture(*stream);
  return any;
}

bool is_pinned(const void* memory) {
  const auto& pinned = runtime().pinned;
  const auto after = pinned.upper_bound(const_cast<void*>(memory));
  if (after == pinned.begin()) return false;
  const auto& [begin, bytes] = *std::prev(after);
  return static_cast<const char*>(memory) < static_cast<const char*>(begin) + bytes;
}

// Is each side where the kind says that it is?
bool sides_are(cudaMemcpyKind kind, const void* to, const void* from, std::size_t bytes) {
  const auto device = [&](const void* side) { return is_device_memory(side, bytes); };
  const auto host = [&](const void* side) { return side != nullptr && !touches_device_region(side); };
  switch (kind) {
    case cudaMemcpyHostToHost:
      return host(to) && host(from);
    case cudaMemcpyHostToDevice:
      return device(to) && host(from);
    case cudaMemcpyDeviceToHost:
      return host(to) && device(from);
    case cudaMemcpyDeviceToDevice:
      return device(to) && device(from);
    case cudaMemcpyDefault:
      return (device(to) || host(to)) && (device(from) || host(from));
  }
  return false;
}

void copy(void* to, const void* from, std::size_t bytes) {
  const OpenMemory open;
  std::memmove(to, from, bytes);
}

}  // namespace

namespace cuda_emulation {

void set_last_error(cudaError_t error) {
  const Lock lock(runtime().mutex);
  runtime().last = error;
}

void on_stream(cudaStream_t stream, std::function<void()> work) {
  const Lock lock(runtime().mutex);
  CUstream_st& s = *real(stream);
  if (s.capture != nullptr) {
    s.capture->work.push_back(std::move(work));
    return;
  }
  s.work.push_back(std::move(work));
  ++s.given;
  if (!s.lazy) work_off(s);
}

}  // namespace cuda_emulation

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return told(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int device) {
  if (device != 0 || size < 16) return cudaErrorInvalidValue;
  std::strcpy(id, "0000:00:00.0");
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return told(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = multiprocessors;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = compute_capability() / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = compute_capability() % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = 227 << 10;
      return cudaSuccess;
  }
  return told(cudaErrorInvalidValue);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return told(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated on the CPU");
  properties->totalGlobalMem = memory_size();
  properties->sharedMemPerBlockOptin = 227 << 10;
  properties->multiProcessorCount = multiprocessors;
  properties->major = compute_capability() / 10;
  properties->minor = compute_capability() % 10;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  const Lock lock(runtime().mutex);
  work_off_all();
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total_bytes) {
  *total_bytes = memory_size();
  *free_bytes = memory_size() - memory_in_use();
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  const Lock lock(runtime().mutex);
  if (breaks_any_capture()) return told(cudaErrorStreamCaptureUnsupported);
  *memory = bytes == 0 ? nullptr : take_memory(bytes);
  return told(bytes == 0 || *memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void* memory) {
  const Lock lock(runtime().mutex);
  if (breaks_any_capture()) return told(cudaErrorStreamCaptureUnsupported);
  work_off_all();  // what is under way may still use it
  return told(memory == nullptr || give_back(memory) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  const Lock lock(runtime().mutex);
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*memory == nullptr) return told(cudaErrorMemoryAllocation);
  std::memset(*memory, 0xff, bytes);
  runtime().pinned[*memory] = bytes;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  const Lock lock(runtime().mutex);
  if (memory == nullptr) return cudaSuccess;
  work_off_all();
  if (runtime().pinned.erase(memory) == 0) return told(cudaErrorInvalidValue);
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (bytes == 0) return cudaSuccess;
  if (!sides_are(kind, to, from, bytes)) return told(cudaErrorInvalidValue);
  const bool host_waits = !touches_device_region(to) && !is_pinned(to);
  if (host_waits && breaks_capture(*real(stream))) return told(cudaErrorStreamCaptureUnsupported);
  // Host memory that is not pinned is read before the call returns, and written before it does.
  if (!touches_device_region(from) && !is_pinned(from)) {
    const auto* const begin = static_cast<const char*>(from);
    on_stream(stream, [to, held = std::vector<char>(begin, begin + bytes)] { copy(to, held.data(), held.size()); });
  } else {
    on_stream(stream, [=] { copy(to, from, bytes); });
  }
  if (host_waits) work_off(*real(stream));
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(runtime().mutex);
  work_off_all();
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  work_off_all();
  return error;
}
cudaError_t cudaMemsetAsync(void* memory, int byte, std::size_t bytes, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (bytes == 0) return cudaSuccess;
  if (!is_device_memory(memory, bytes)) return told(cudaErrorInvalidValue);
  on_stream(stream, [=] {
    const OpenMemory open;
    std::memset(memory, byte, bytes);
  });
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(runtime().mutex);
  *stream = *runtime().streams.insert(new CUstream_st).first;
  (*stream)->lazy = runtime().lazy || runtime().has_main;
  runtime().has_main = true;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest) {
  *lowest = 0;
  *highest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (runtime().streams.count(stream) == 0) return told(cudaErrorInvalidResourceHandle);
  work_off(*stream);
  runtime().streams.erase(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  if (breaks_capture(*real(stream))) return told(cudaErrorStreamCaptureUnsupported);
  work_off(*real(stream));
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  CUstream_st& s = *real(stream);
  if (s.work.empty()) return cudaSuccess;
  work_off(s, s.done + 1);  // whoever asks again and again gets there
  return cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(runtime().mutex);
  CUstream_st* const before = event->stream;  // as it was recorded last by now
  if (before == nullptr || before == real(stream)) return cudaSuccess;
  on_stream(stream, [before, at = event->at] {
    if (runtime().streams.count(before) != 0) work_off(*before, at);
  });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Lock lock(runtime().mutex);
  if (event->stream != nullptr && runtime().streams.count(event->stream) != 0) work_off(*event->stream, event->at);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(runtime().mutex);
  event->stream = real(stream);
  event->at = event->stream->given + 1;
  on_stream(stream, [event] { event->time = Clock::now(); });
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(runtime().mutex);
  if (event->stream != nullptr && runtime().streams.count(event->stream) != 0) work_off(*event->stream, event->at);
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(runtime().mutex);
  if (event->stream == nullptr || runtime().streams.count(event->stream) == 0) return cudaSuccess;
  if (event->stream->done >= event->at) return cudaSuccess;
  work_off(*event->stream, event->stream->done + 1);
  return cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  const Lock lock(runtime().mutex);
  *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const Lock lock(runtime().mutex);
  if (stream == nullptr || stream->capture != nullptr) return told(cudaErrorStreamCaptureUnsupported);
  stream->capture = new CUgraph_st;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const Lock lock(runtime().mutex);
  *graph = nullptr;
  if (stream == nullptr || stream->capture == nullptr) return told(cudaErrorInvalidValue);
  CUgraph_st* const captured = std::exchange(stream->capture, nullptr);
  if (captured->broken) {
    delete captured;
    return told(cudaErrorStreamCaptureInvalidated);
  }
  *graph = captured;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  for (const std::function<void()>& work : executable->work) on_stream(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const Lock lock(runtime().mutex);
  work_off_all();
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const Lock lock(runtime().mutex);
  return std::exchange(runtime().last, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() {
  const Lock lock(runtime().mutex);
  return runtime().last;
}
const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
  }
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
  }
  return "unrecognized error code";
}
