#include "layers/ops/norm.h"

#include "comm/device/work.h"
#include "layers/ops/activation.h"
#include "layers/ops/blocks.h"
#include "layers/ops/float_type.h"
#include "layers/ops/norm_cpu.h"
#include "layers/ops/norm_cuda.h"

#include <memory>

namespace switchyard {
namespace {

// Rows are worked off in blocks of this many; a weight's gradient is summed within a block, and the blocks in their
// order.
constexpr std::int64_t block_rows = 64;

void check_rows(const char* op, const char* name, const Tensor& tensor, const Tensor& x) {
  check_tensor(op, name, tensor, {x.rows()}, x.device());
}
void check_width(const char* op, const char* name, const Tensor& tensor, const Tensor& x) {
  check_tensor(op, name, tensor, {x.cols()}, x.device());
}
void check_like(const char* op, const char* name, const Tensor& tensor, const Tensor& x) {
  check_tensor(op, name, tensor, x.shape(), x.device(), x.dtype());
}
void check_input(const char* op, const Tensor& x) {
  require(x.defined() && x.shape().rank() >= 1, "{}: x is undefined", op);
  float_type(op, "x", x);
}
void check_sum(const char* op, const char* name, const GradientSum& sum, const Tensor& x) {
  require(sum.size == x.cols(), "{}: {} has room for {} elements, wanted {}", op, name, sum.size, x.cols());
}

// Shares of a gradient, a row of `width` for each block of rows.
class BlockSums {
 public:
  BlockSums(std::int64_t rows, std::int64_t width)
      : blocks_((rows + block_rows - 1) / block_rows),
        width_(width),
        shares_(std::make_unique_for_overwrite<float[]>(usize(blocks_ * width))) {}

  float* share(std::int64_t block) { return shares_.get() + block * width_; }
  // Adds the blocks, in order, as one partial.
  void add_to(const GradientSum& sum) {
    if (blocks_ == 0) return;
    float* total = share(0);
    for (std::int64_t block = 1; block < blocks_; ++block) {
      const float* next = share(block);
      for (std::int64_t i = 0; i < width_; ++i) total[i] += next[i];
    }
    add_partial(sum, total, width_);
  }

 private:
  std::int64_t blocks_;
  std::int64_t width_;
  std::unique_ptr<float[]> shares_;
};

}  // namespace

void rms_norm(const Tensor& x, const Tensor& weight, float eps, Tensor y, Tensor inverse_rms) {
  const char* op = "rms_norm";
  check_input(op, x);
  check_width(op, "weight", weight, x);
  check_like(op, "y", y, x);
  check_rows(op, "inverse_rms", inverse_rms, x);
  if (!on_cpu(x)) {
    const DeviceWork work(x.device(), op, {.bytes = bytes_of(x, weight, y, inverse_rms)});
    return cuda::rms_norm(x, weight, eps, y, inverse_rms);
  }
  const std::int64_t width = x.cols();
  for_blocks(x.rows(), block_rows, [&](std::int64_t, std::int64_t begin, std::int64_t count) {
    cpu::rms_norm(x.f32() + begin * width, weight.f32(), eps, count, width, y.f32() + begin * width,
                  inverse_rms.f32() + begin);
  });
}

void add_rms_norm(const Tensor& x, Tensor sum, const Tensor& weight, float eps, Tensor y, Tensor inverse_rms) {
  const char* op = "add_rms_norm";
  check_input(op, x);
  check_like(op, "sum", sum, x);
  if (on_cpu(x)) {
    add_in_place(x, sum);
    return rms_norm(sum, weight, eps, y, inverse_rms);
  }
  check_width(op, "weight", weight, x);
  check_like(op, "y", y, x);
  check_rows(op, "inverse_rms", inverse_rms, x);
  const DeviceWork work(x.device(), op, {.bytes = bytes_of(x, sum, sum, weight, y, inverse_rms)});
  cuda::add_rms_norm(x, sum, weight, eps, y, inverse_rms);
}

void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, Tensor dx,
                       bool add_to_dx, const GradientSum& dweight) {
  const char* op = "rms_norm_backward";
  check_input(op, x);
  check_like(op, "dy", dy, x);
  check_width(op, "weight", weight, x);
  check_rows(op, "inverse_rms", inverse_rms, x);
  check_like(op, "dx", dx, x);
  check_sum(op, "dweight", dweight, x);
  if (!on_cpu(x)) {
    const DeviceWork work(x.device(), op, {.bytes = bytes_of(dy, x, inverse_rms, dx) + (add_to_dx ? bytes_of(dx) : 0)});
    return cuda::rms_norm_backward(dy, x, weight, inverse_rms, dx, add_to_dx, dweight);
  }
  const std::int64_t width = x.cols();
  BlockSums sums(x.rows(), width);
  for_blocks(x.rows(), block_rows, [&](std::int64_t block, std::int64_t begin, std::int64_t count) {
    const std::int64_t first = begin * width;
    cpu::rms_norm_backward(dy.f32() + first, x.f32() + first, weight.f32(), inverse_rms.f32() + begin, count, width,
                           dx.f32() + first, add_to_dx, sums.share(block));
  });
  sums.add_to(dweight);
}

void layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, Tensor y, Tensor mean,
                Tensor inverse_deviation) {
  const char* op = "layer_norm";
  check_input(op, x);
  check_width(op, "weight", weight, x);
  check_width(op, "bias", bias, x);
  check_like(op, "y", y, x);
  check_rows(op, "mean", mean, x);
  check_rows(op, "inverse_deviation", inverse_deviation, x);
  if (!on_cpu(x)) {
    const DeviceWork work(x.device(), op, {.bytes = bytes_of(x, weight, bias, y, mean, inverse_deviation)});
    return cuda::layer_norm(x, weight, bias, eps, y, mean, inverse_deviation);
  }
  const std::int64_t width = x.cols();
  for_blocks(x.rows(), block_rows, [&](std::int64_t, std::int64_t begin, std::int64_t count) {
    cpu::layer_norm(x.f32() + begin * width, weight.f32(), bias.f32(), eps, count, width, y.f32() + begin * width,
                    mean.f32() + begin, inverse_deviation.f32() + begin);
  });
}

void add_layer_norm(const Tensor& x, Tensor sum, const Tensor& weight, const Tensor& bias, float eps, Tensor y,
                    Tensor mean, Tensor inverse_deviation) {
  const char* op = "add_layer_norm";
  check_input(op, x);
  check_like(op, "sum", sum, x);
  if (on_cpu(x)) {
    add_in_place(x, sum);
    return layer_norm(sum, weight, bias, eps, y, mean, inverse_deviation);
  }
  check_width(op, "weight", weight, x);
  check_width(op, "bias", bias, x);
  check_like(op, "y", y, x);
  check_rows(op, "mean", mean, x);
  check_rows(op, "inverse_deviation", inverse_deviation, x);
  const DeviceWork work(x.device(), op, {.bytes = bytes_of(x, sum, sum, weight, bias, y, mean, inverse_deviation)});
  cuda::add_layer_norm(x, sum, weight, bias, eps, y, mean, inverse_deviation);
}

void layer_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& mean,
                         const Tensor& inverse_deviation, Tensor dx, bool add_to_dx, const GradientSum& dweight,
                         const GradientSum& dbias) {
  const char* op = "layer_norm_backward";
  check_input(op, x);
  check_like(op, "dy", dy, x);
  check_width(op, "weight", weight, x);
  check_rows(op, "mean", mean, x);
  check_rows(op, "inverse_deviation", inverse_deviation, x);
  check_like(op, "dx", dx, x);
  check_sum(op, "dweight", dweight, x);
  check_sum(op, "dbias", dbias, x);
  if (!on_cpu(x)) {
    const DeviceWork work(x.device(), op,
                          {.bytes = bytes_of(dy, x, mean, inverse_deviation, dx) + (add_to_dx ? bytes_of(dx) : 0)});
    return cuda::layer_norm_backward(dy, x, weight, mean, inverse_deviation, dx, add_to_dx, dweight, dbias);
  }
  const std::int64_t width = x.cols();
  BlockSums weight_sums(x.rows(), width);
  BlockSums bias_sums(x.rows(), width);
  for_blocks(x.rows(), block_rows, [&](std::int64_t block, std::int64_t begin, std::int64_t count) {
    const std::int64_t first = begin * width;
    cpu::layer_norm_backward(dy.f32() + first, x.f32() + first, weight.f32(), mean.f32() + begin,
                             inverse_deviation.f32() + begin, count, width, dx.f32() + first, add_to_dx,
                             weight_sums.share(block), bias_sums.share(block));
  });
  weight_sums.add_to(dweight);
  bias_sums.add_to(dbias);
}

}  // namespace switchyard
