#include "layers/attention/rope.h"

#include "comm/device/host_view.h"
#include "comm/device/work.h"
#include "layers/attention/rope_cpu.h"
#include "layers/attention/rope_cuda.h"
#include "layers/ops/float_type.h"

#include <cmath>

namespace switchyard {
namespace {

void check_heads(const char* op, const char* name, const Tensor& x, std::int64_t head_dim) {
  require(x.defined() && x.shape().rank() == 2 && x.cols() % head_dim == 0,
          "{}: {} is {}, wanted a matrix of whole heads of width {}", op, name, x.shape().to_string(), head_dim);
}

void turn(const char* op, const Tensor& table, std::int64_t head_dim, bool back, const Tensor& q, const Tensor& k) {
  require(head_dim > 0 && head_dim % 2 == 0, "{}: a head width of {} has no halves", op, head_dim);
  check_heads(op, "q", q, head_dim);
  check_heads(op, "k", k, head_dim);
  require(table.defined() && table.shape().rank() == 2 && (table.rows() > 0 || q.rows() == 0),
          "{}: the table is {}, wanted a row a position", op, table.shape().to_string());
  check_tensor(op, "table", table, {table.dim(0), head_dim}, q.device());
  check_tensor(op, "k", k, {q.dim(0), k.dim(1)}, q.device(), float_type(op, "q", q));
  if (!on_cpu(q)) {
    const DeviceWork work(q.device(), op, {.bytes = bytes_of(q, q, k, k)});
    return cuda::rope(table, head_dim, back, q, k);
  }

  const std::int64_t rows = q.rows();
  const std::int64_t positions = table.rows();
  const float* angles = table.f32();
#pragma omp parallel for schedule(static) if (rows > 16)
  for (std::int64_t t = 0; t < rows; ++t) {
    for (const Tensor* const x : {&q, &k}) {
      cpu::rope_row(angles + t % positions * head_dim, head_dim, x->cols() / head_dim, back, x->f32() + t * x->cols());
    }
  }
}

}  // namespace

void rope_table(std::int64_t first, std::int64_t count, double theta, Tensor table) {
  const char* op = "rope_table";
  require(table.defined() && table.shape().rank() == 2 && table.cols() % 2 == 0,
          "{}: table is {}, wanted a matrix with an even number of columns", op, table.shape().to_string());
  require(theta > 0, "{}: theta is {}, wanted a positive number", op, theta);
  check_tensor(op, "table", table, {count, table.cols()}, table.device());
  const std::int64_t half = table.cols() / 2;
  HostView<float> angles(table.device(), table.f32(), table.size(), HostAccess::Write);
  for (std::int64_t i = 0; i < half; ++i) {
    const double frequency = std::pow(theta, -static_cast<double>(i) / static_cast<double>(half));
    for (std::int64_t t = 0; t < count; ++t) {
      const double angle = static_cast<double>(first + t) * frequency;
      angles[t * 2 * half + i] = static_cast<float>(std::cos(angle));
      angles[t * 2 * half + half + i] = static_cast<float>(std::sin(angle));
    }
  }
  angles.give_back();
}

void rope(const Tensor& table, std::int64_t head_dim, Tensor q, Tensor k) {
  turn("rope", table, head_dim, false, q, k);
}

void rope_backward(const Tensor& table, std::int64_t head_dim, Tensor dq, Tensor dk) {
  turn("rope_backward", table, head_dim, true, dq, dk);
}

}  // namespace switchyard
