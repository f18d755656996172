// cuDNN by its C interface: the library, loaded when it is first wanted, and graphs of operations that it turns into
// plans. For the *_cudnn.cpp files: nobody else sees a header of cuDNN.
//
// What cuDNN refuses is thrown as Error(Runtime) with its own words.
#pragma once

#include "comm/base/handle.h"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <cudnn_graph.h>

namespace switchyard::cudnn {

// The functions of the library.
struct Library {
  decltype(::cudnnBackendCreateDescriptor)* create_descriptor = nullptr;
  decltype(::cudnnBackendDestroyDescriptor)* destroy_descriptor = nullptr;
  decltype(::cudnnBackendExecute)* execute = nullptr;
  decltype(::cudnnBackendFinalize)* finalize = nullptr;
  decltype(::cudnnBackendGetAttribute)* get_attribute = nullptr;
  decltype(::cudnnBackendSetAttribute)* set_attribute = nullptr;
  decltype(::cudnnCreate)* create = nullptr;
  decltype(::cudnnGetErrorString)* error_string = nullptr;
  decltype(::cudnnGetLastErrorString)* last_error_string = nullptr;
  decltype(::cudnnGetVersion)* version = nullptr;
  decltype(::cudnnSetStream)* set_stream = nullptr;
  std::string why_not;  // empty: it is there, and of a version that will do
};
const Library& library();

void check(cudnnStatus_t status, const char* call);

struct DescriptorTraits {
  using Value = cudnnBackendDescriptor_t;
  static Value none() { return nullptr; }
  static void release(Value value) noexcept { library().destroy_descriptor(value); }
};

// One of cuDNN's descriptors: made, described and finalised.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  cudnnBackendDescriptor_t get() const { return handle_.get(); }

  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                  const void* values);
  Descriptor& set(cudnnBackendAttributeName_t name, std::span<const std::int64_t> values);
  Descriptor& set(cudnnBackendAttributeName_t name, std::int64_t value);
  Descriptor& set(cudnnBackendAttributeName_t name, bool value);
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnDataType_t value);
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value);
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnHandle_t value);
  Descriptor& finalize();

 private:
  Handle<DescriptorTraits> handle_;
};

// Whose plans are made: those of a GPU that is there, or, where `handle` is null, of one that is described.
struct Target {
  cudnnHandle_t handle = nullptr;
  cudnnBackendDescriptor_t properties = nullptr;
};

// What cuDNN runs for a graph.
class Plan {
 public:
  std::int64_t workspace() const { return workspace_; }  // bytes

  // An address for each uid, of host memory where the value is a scalar's.
  void run(cudnnHandle_t handle, std::span<const std::int64_t> uids, std::span<void* const> addresses,
           void* workspace) const;

 private:
  friend class Graph;
  std::vector<Descriptor> kept_;  // what it was made of; the last is the plan itself
  std::int64_t workspace_ = 0;
};

// Tensors of four dimensions, as attention has them: [B, heads, rows, columns].
using Extents = std::array<std::int64_t, 4>;
Extents strides_of(const Extents& dims);  // where nothing lies between the elements

// Operations over tensors. A Value names a tensor; in the order in which operations are added each finds its inputs
// made.
class Graph {
 public:
  using Value = cudnnBackendDescriptor_t;

  // In memory, under a uid that the caller chooses (1 and up).
  Value memory(std::int64_t uid, const Extents& dims, const Extents& strides, cudnnDataType_t type);
  Value scalar(std::int64_t uid);  // fp32, given by value
  // Between operations, never in memory.
  Value between(const Extents& dims, cudnnDataType_t type = CUDNN_DATA_FLOAT);
  Value between(const Extents& dims, const Extents& strides, cudnnDataType_t type);

  void pointwise(cudnnPointwiseMode_t mode, Value x, Value y, cudnnDataType_t precision = CUDNN_DATA_FLOAT);
  void pointwise(cudnnPointwiseMode_t mode, Value x, Value b, Value y, cudnnDataType_t precision = CUDNN_DATA_FLOAT);
  void index(std::int64_t axis, Value like, Value y);  // y = the element's place along an axis
  void select(Value condition, Value where_true, Value where_false, Value y);
  void reduce(cudnnReduceTensorOp_t op, Value x, Value y);
  void product(Value a, Value b, Value c);  // c = a b, over the last two dimensions
  void reshape(Value x, Value y);           // the same elements, as y's dimensions and strides say

  // The graph is used up. Of the plans that cuDNN proposes the first that it can make.
  Plan plan(const Target& target);

 private:
  Value tensor(std::int64_t uid, const Extents& dims, const Extents& strides, cudnnDataType_t type, bool is_virtual,
               bool by_value);
  void add(Descriptor operation);

  std::vector<Descriptor> descriptors_;
  std::vector<cudnnBackendDescriptor_t> operations_;
  std::int64_t last_virtual_ = 1000;  // uids of what the caller does not name
};

}  // namespace switchyard::cudnn
