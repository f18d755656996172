// Where memory lies and work runs. No CUDA header is seen here: a device is a backend behind an interface, and a
// program that was built without CUDA has, in its place, one that says so (cuda_absent.cpp).
#pragma once

#include "comm/base/ids.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace switchyard {

enum class DeviceKind { Cpu, Cuda };

// An order in which a device does its work. The CPU's does everything at once, in the caller's thread.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual void synchronize() = 0;
  // What it is given from now on comes after all that the other one has been given so far; the host does not wait.
  virtual void follow(Stream& other) = 0;
};

class WorkRecord;

// Work of a device's main stream that was given once and is done again as a whole, on the same memory.
class WorkGraph {
 public:
  virtual ~WorkGraph() = default;
  virtual void launch() = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  virtual std::string name() const = 0;  // "cpu", "cuda:0"
  // What tells it from the other devices of its host, also where processes see different ones under the same name.
  virtual std::string identity() const { return name(); }
  virtual std::string model() const { return name(); }      // "NVIDIA H100 80GB HBM3"
  virtual Bytes memory_in_use() const { return Bytes(0); }  // by all processes; 0: not known

  // 64-byte aligned at least; contents are undefined. Throws Error(Runtime) naming the size where there is no memory.
  virtual void* allocate(Bytes bytes) = 0;
  virtual void release(void* memory, Bytes bytes) noexcept = 0;
  // In the stream's order. What the host gives may be touched again when the call returns, and what it asks for is
  // there then; the rest may still be under way.
  virtual void fill(void* memory, int byte, Bytes bytes, Stream& stream) = 0;
  virtual void copy_to_host(void* host, const void* memory, Bytes bytes, Stream& stream) = 0;
  virtual void copy_from_host(void* memory, const void* host, Bytes bytes, Stream& stream) = 0;
  virtual void copy(void* to, const void* from, Bytes bytes, Stream& stream) = 0;  // both on this device
  // What ops work on: the device's main stream, or in an OnStream that one.
  virtual Stream& stream() = 0;
  // What goes between devices, beside what the main stream computes. The CPU has one order for both.
  virtual Stream& exchange_stream() { return stream(); }

  // From now on what the main stream does is recorded, or no longer. The record, or null where there is none (the CPU).
  virtual void keep_record(bool) {}
  virtual WorkRecord* record() { return nullptr; }

  // What `work` gives the main stream is not done but kept. Meanwhile no memory may be taken or given back and the host
  // may neither wait nor copy: that is an Error. Null where a device has no such thing (the CPU); work is then not
  // called.
  virtual std::unique_ptr<WorkGraph> capture(const std::function<void()>& work);

  // Room for one op of the main stream, until the next op asks for it; grows and stays.
  void* workspace(Bytes bytes);
  std::int64_t workspace_moves() const;  // how often it has grown, and so come to lie elsewhere

 protected:
  friend class OnStream;
  // From now on ops of this thread work on that stream, null: the main one. Returns what was there before.
  virtual Stream* work_on(Stream*) { return nullptr; }

 private:
  struct Workspace;
  std::shared_ptr<Workspace> workspace_;  // its type is not known here
};

// Within it, ops of this thread work on another stream than the main one: those that take no workspace, which is the
// main stream's. What they do is in no record.
class OnStream {
 public:
  OnStream(Device& device, Stream& stream) : device_(device), before_(device.work_on(&stream)) {}
  ~OnStream() { device_.work_on(before_); }
  OnStream(const OnStream&) = delete;
  OnStream& operator=(const OnStream&) = delete;

 private:
  Device& device_;
  Stream* before_;
};

Device& cpu_device();
// "cpu", "cuda" or "cuda:N". "cuda": the ranks of a node take its GPUs in turn. Throws Error(Usage) for an unknown
// name, for CUDA in a build without it and for a GPU that is not there.
Device& open_device(std::string_view name, int rank_in_node = 0);
void check_device(std::string_view name);  // the same, without opening it

namespace detail {  // cuda.cpp or cuda_absent.cpp
Device& open_cuda(int index);
int check_cuda(int index);  // how many GPUs there are; throws where `index` is none of them
}  // namespace detail

// Memory of a device; move-only.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device& device, Bytes bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return data_; }
  Bytes size() const { return size_; }
  Device* device() const { return device_; }
  void zero();

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
  Bytes size_{0};
};

// Memory that is taken often and given back all at once, last taken first given back. Grows by whole chunks; after a
// step or two it has the size that the step needs and takes nothing more from the device.
class Arena {
 public:
  explicit Arena(Device& device, Bytes chunk = Bytes(1 << 20));
  ~Arena();
  Arena(Arena&&) noexcept;
  Arena& operator=(Arena&&) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  void* take(Bytes bytes);  // 64-byte aligned; undefined contents (filled with 0xff in builds without NDEBUG)

  struct Mark {
    std::size_t chunk = 0;
    std::int64_t offset = 0;
    std::int64_t in_use = 0;
    bool operator==(const Mark&) const = default;
  };
  Mark mark() const;
  void release(Mark mark);  // gives back all that was taken since the mark

  Device& device() const;
  Bytes in_use() const;
  Bytes peak() const;      // the most that was in use at once
  Bytes reserved() const;  // what it holds of the device
  // How often its memory has changed. As long as it has not, the same calls give the same addresses.
  std::int64_t moves() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Gives back, at the end of a block, what was taken in it.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace switchyard
