#include "layers/ops/activation.h"

#include "comm/device/work.h"
#include "layers/ops/activation_cpu.h"
#include "layers/ops/activation_cuda.h"
#include "layers/ops/float_type.h"

namespace switchyard {
namespace {

// `tensor` must be as `like`, the op's first input.
void check_like(const char* op, const char* name, const Tensor& tensor, const Tensor& like) {
  require(like.defined(), "{}: an input is undefined", op);
  check_tensor(op, name, tensor, like.shape(), like.device(), float_type(op, "an input", like));
}

}  // namespace

void swiglu(const Tensor& gate, const Tensor& up, Tensor h) {
  check_like("swiglu", "gate", gate, gate);
  check_like("swiglu", "up", up, gate);
  check_like("swiglu", "h", h, gate);
  if (on_cpu(gate)) return cpu::swiglu(gate.f32(), up.f32(), gate.size(), h.f32());
  const DeviceWork work(gate.device(), "swiglu", {.bytes = bytes_of(gate, up, h)});
  cuda::swiglu(gate, up, h);
}

void swiglu_backward(const Tensor& dh, const Tensor& gate, const Tensor& up, Tensor dgate, Tensor dup) {
  const char* op = "swiglu_backward";
  check_like(op, "dh", dh, dh);
  check_like(op, "gate", gate, dh);
  check_like(op, "up", up, dh);
  check_like(op, "dgate", dgate, dh);
  check_like(op, "dup", dup, dh);
  if (on_cpu(dh)) {
    return cpu::swiglu_backward(dh.f32(), gate.f32(), up.f32(), dh.size(), dgate.f32(), dup.f32());
  }
  const DeviceWork work(dh.device(), "swiglu_backward", {.bytes = bytes_of(dh, gate, up, dgate, dup)});
  cuda::swiglu_backward(dh, gate, up, dgate, dup);
}

void gelu(const Tensor& x, Tensor y) {
  check_like("gelu", "x", x, x);
  check_like("gelu", "y", y, x);
  if (on_cpu(x)) return cpu::gelu(x.f32(), x.size(), y.f32());
  const DeviceWork work(x.device(), "gelu", {.bytes = bytes_of(x, y)});
  cuda::gelu(x, y);
}

void gelu_backward(const Tensor& dy, const Tensor& x, Tensor dx) {
  check_like("gelu_backward", "dy", dy, dy);
  check_like("gelu_backward", "x", x, dy);
  check_like("gelu_backward", "dx", dx, dy);
  if (on_cpu(dy)) return cpu::gelu_backward(dy.f32(), x.f32(), dy.size(), dx.f32());
  const DeviceWork work(dy.device(), "gelu_backward", {.bytes = bytes_of(dy, x, dx)});
  cuda::gelu_backward(dy, x, dx);
}

void relu(const Tensor& x, Tensor y) {
  check_like("relu", "x", x, x);
  check_like("relu", "y", y, x);
  if (on_cpu(x)) return cpu::relu(x.f32(), x.size(), y.f32());
  const DeviceWork work(x.device(), "relu", {.bytes = bytes_of(x, y)});
  cuda::relu(x, y);
}

void relu_backward(const Tensor& dy, const Tensor& x, Tensor dx) {
  check_like("relu_backward", "dy", dy, dy);
  check_like("relu_backward", "x", x, dy);
  check_like("relu_backward", "dx", dx, dy);
  if (on_cpu(dy)) return cpu::relu_backward(dy.f32(), x.f32(), dy.size(), dx.f32());
  const DeviceWork work(dy.device(), "relu_backward", {.bytes = bytes_of(dy, x, dx)});
  cuda::relu_backward(dy, x, dx);
}

void add_in_place(const Tensor& x, Tensor y) {
  check_like("add_in_place", "x", x, x);
  check_like("add_in_place", "y", y, x);
  if (on_cpu(x)) return cpu::add_in_place(x.f32(), x.size(), y.f32());
  const DeviceWork work(x.device(), "add_in_place", {.bytes = bytes_of(x, y, y)});
  cuda::add_in_place(x, y);
}

}  // namespace switchyard
