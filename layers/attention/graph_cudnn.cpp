#include "layers/attention/graph_cudnn.h"

#include "comm/base/error.h"
#include "comm/base/shared_library.h"
#include "comm/device/device.h"

#include <utility>

namespace switchyard::cudnn {
namespace {

constexpr std::size_t oldest = 91600;  // before it, backward is wrong for sequences that are no multiple of 128

Library load() {
  Library functions;
  const SharedLibrary file("libcudnn.so." + std::to_string(CUDNN_MAJOR));
  if (!file.is_there()) {
    functions.why_not = file.why_not();
    return functions;
  }
  try {
    file.find("cudnnBackendCreateDescriptor", functions.create_descriptor);
    file.find("cudnnBackendDestroyDescriptor", functions.destroy_descriptor);
    file.find("cudnnBackendExecute", functions.execute);
    file.find("cudnnBackendFinalize", functions.finalize);
    file.find("cudnnBackendGetAttribute", functions.get_attribute);
    file.find("cudnnBackendSetAttribute", functions.set_attribute);
    file.find("cudnnCreate", functions.create);
    file.find("cudnnGetErrorString", functions.error_string);
    file.find("cudnnGetLastErrorString", functions.last_error_string);
    file.find("cudnnGetVersion", functions.version);
    file.find("cudnnSetStream", functions.set_stream);
    const std::size_t version = functions.version();
    if (version < oldest) functions.why_not = fmt::format("cuDNN is {}, wanted {} or later", version, oldest);
  } catch (const Error& error) {
    functions.why_not = error.what();
  }
  return functions;
}

void set_type(Descriptor& descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
              const auto& value) {
  descriptor.set(name, type, 1, &value);
}

std::int64_t count_of(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                      cudnnBackendAttributeType_t type) {
  std::int64_t count = 0;
  check(library().get_attribute(descriptor, name, type, 0, &count, nullptr), "cudnnBackendGetAttribute");
  return count;
}

std::int64_t number_of(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name) {
  std::int64_t value = 0;
  std::int64_t count = 0;
  check(library().get_attribute(descriptor, name, CUDNN_TYPE_INT64, 1, &count, &value), "cudnnBackendGetAttribute");
  return value;
}

}  // namespace

const Library& library() {
  static const Library functions = load();
  return functions;
}

void check(cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  std::array<char, 512> words{};
  library().last_error_string(words.data(), words.size());
  fail(ErrorKind::Runtime, "{} failed: {} ({})", call, library().error_string(status), words.data());
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t made = nullptr;
  check(library().create_descriptor(type, &made), "cudnnBackendCreateDescriptor");
  handle_ = Handle<DescriptorTraits>(made);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                            const void* values) {
  check(library().set_attribute(get(), name, type, count, values), "cudnnBackendSetAttribute");
  return *this;
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, std::span<const std::int64_t> values) {
  return set(name, CUDNN_TYPE_INT64, isize(values.size()), values.data());
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, std::int64_t value) {
  return set(name, CUDNN_TYPE_INT64, 1, &value);
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, bool value) {
  return set(name, CUDNN_TYPE_BOOLEAN, 1, &value);
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
  return set(name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value) {
  return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}
Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnHandle_t value) {
  return set(name, CUDNN_TYPE_HANDLE, 1, &value);
}
Descriptor& Descriptor::finalize() {
  check(library().finalize(get()), "cudnnBackendFinalize");
  return *this;
}

void Plan::run(cudnnHandle_t handle, std::span<const std::int64_t> uids, std::span<void* const> addresses,
               void* workspace) const {
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, uids)
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, isize(addresses.size()), addresses.data())
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace)
      .finalize();
  check(library().execute(handle, kept_.back().get(), pack.get()), "cudnnBackendExecute");
}

Extents strides_of(const Extents& dims) {
  return {dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1};
}

Graph::Value Graph::tensor(std::int64_t uid, const Extents& dims, const Extents& strides, cudnnDataType_t type,
                           bool is_virtual, bool by_value) {
  constexpr std::int64_t alignment = 16;
  Descriptor made(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  made.set(CUDNN_ATTR_TENSOR_DATA_TYPE, type)
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, dims)
      .set(CUDNN_ATTR_TENSOR_STRIDES, strides)
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, uid)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment)
      .set(CUDNN_ATTR_TENSOR_IS_VIRTUAL, is_virtual)
      .set(CUDNN_ATTR_TENSOR_IS_BY_VALUE, by_value)
      .finalize();
  descriptors_.push_back(std::move(made));
  return descriptors_.back().get();
}
Graph::Value Graph::memory(std::int64_t uid, const Extents& dims, const Extents& strides, cudnnDataType_t type) {
  return tensor(uid, dims, strides, type, false, false);
}
Graph::Value Graph::scalar(std::int64_t uid) {
  return tensor(uid, {1, 1, 1, 1}, {1, 1, 1, 1}, CUDNN_DATA_FLOAT, false, true);
}
Graph::Value Graph::between(const Extents& dims, cudnnDataType_t type) {
  return between(dims, strides_of(dims), type);
}
Graph::Value Graph::between(const Extents& dims, const Extents& strides, cudnnDataType_t type) {
  return tensor(++last_virtual_, dims, strides, type, true, false);
}

void Graph::add(Descriptor operation) {
  operation.finalize();
  operations_.push_back(operation.get());
  descriptors_.push_back(std::move(operation));
}

namespace {

Descriptor pointwise_of(cudnnPointwiseMode_t mode, cudnnDataType_t precision) {
  Descriptor kind(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  set_type(kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
  kind.set(CUDNN_ATTR_POINTWISE_MATH_PREC, precision);
  return kind;
}

Descriptor pointwise_operation(const Descriptor& kind, Graph::Value x, Graph::Value y) {
  Descriptor operation(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind.get())
      .set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x)
      .set(CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  return operation;
}

}  // namespace

void Graph::pointwise(cudnnPointwiseMode_t mode, Value x, Value y, cudnnDataType_t precision) {
  descriptors_.push_back(std::move(pointwise_of(mode, precision).finalize()));
  add(pointwise_operation(descriptors_.back(), x, y));
}
void Graph::pointwise(cudnnPointwiseMode_t mode, Value x, Value b, Value y, cudnnDataType_t precision) {
  descriptors_.push_back(std::move(pointwise_of(mode, precision).finalize()));
  Descriptor operation = pointwise_operation(descriptors_.back(), x, y);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
  add(std::move(operation));
}
void Graph::index(std::int64_t axis, Value like, Value y) {
  Descriptor kind = pointwise_of(CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT);
  kind.set(CUDNN_ATTR_POINTWISE_AXIS, axis).finalize();
  descriptors_.push_back(std::move(kind));
  add(pointwise_operation(descriptors_.back(), like, y));
}
void Graph::select(Value condition, Value where_true, Value where_false, Value y) {
  descriptors_.push_back(std::move(pointwise_of(CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT).finalize()));
  Descriptor operation = pointwise_operation(descriptors_.back(), where_true, y);
  operation.set(CUDNN_ATTR_OPERATION_POINTWISE_BDESC, where_false).set(CUDNN_ATTR_OPERATION_POINTWISE_TDESC, condition);
  add(std::move(operation));
}

void Graph::reduce(cudnnReduceTensorOp_t op, Value x, Value y) {
  Descriptor kind(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  set_type(kind, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, op);
  kind.set(CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT).finalize();
  descriptors_.push_back(std::move(kind));
  Descriptor operation(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_REDUCTION_DESC, descriptors_.back().get())
      .set(CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x)
      .set(CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
  add(std::move(operation));
}

void Graph::product(Value a, Value b, Value c) {
  Descriptor kind(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  kind.set(CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT).finalize();
  descriptors_.push_back(std::move(kind));
  Descriptor operation(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_MATMUL_DESC, descriptors_.back().get())
      .set(CUDNN_ATTR_OPERATION_MATMUL_ADESC, a)
      .set(CUDNN_ATTR_OPERATION_MATMUL_BDESC, b)
      .set(CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
  add(std::move(operation));
}

void Graph::reshape(Value x, Value y) {
  Descriptor operation(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  operation.set(CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x).set(CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
  add(std::move(operation));
}

Plan Graph::plan(const Target& target) {
  Descriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, isize(operations_.size()),
            operations_.data());
  if (target.handle != nullptr) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, target.handle);
  graph.finalize();

  Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.get());
  set_type(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, CUDNN_HEUR_MODE_A);
  if (target.handle == nullptr) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, target.properties);
  heuristic.finalize();
  std::vector<Descriptor> proposed;
  std::vector<cudnnBackendDescriptor_t> results;
  const std::int64_t room = count_of(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR);
  for (std::int64_t i = 0; i < room; ++i) {
    proposed.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    results.push_back(proposed.back().get());
  }
  std::int64_t count = 0;
  check(library().get_attribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, room,
                                &count, results.data()),
        "cudnnBackendGetAttribute");

  std::string refusal = "cuDNN proposes no engine";
  for (std::int64_t i = 0; i < count; ++i) {
    try {
      Plan plan;
      Descriptor made(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      made.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, results[usize(i)]);
      if (target.handle != nullptr) {
        made.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, target.handle);
      } else {
        made.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, target.properties);
      }
      made.finalize();
      plan.workspace_ = number_of(made.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
      plan.kept_ = std::move(descriptors_);
      plan.kept_.push_back(std::move(graph));
      plan.kept_.push_back(std::move(proposed[usize(i)]));
      plan.kept_.push_back(std::move(made));
      return plan;
    } catch (const Error& error) {  // the next one may do
      refusal = error.what();
    }
  }
  fail(ErrorKind::Runtime, "{}", refusal);
}

}  // namespace switchyard::cudnn
