#include "layers/ops/norm.h"

#include "layers/ops/norm_cpu.h"

namespace switchyard {
namespace {

void check_rows(const char* op, const char* name, const Tensor& rows, const Tensor& x) {
  check_shape(op, name, rows, {x.rows()});
}
void check_weight(const char* op, const char* name, const Tensor& weight, const Tensor& x) {
  check_shape(op, name, weight, {x.cols()});
}
void check_sum(const char* op, const char* name, const GradientSum& sum, const Tensor& x) {
  require(sum.size == x.cols(), "{}: {} has room for {} elements, wanted {}", op, name, sum.size, x.cols());
}

}  // namespace

void rms_norm(const Tensor& x, const Tensor& weight, float eps, Tensor y, Tensor inverse_rms) {
  check_weight("rms_norm", "weight", weight, x);
  check_shape("rms_norm", "y", y, x.shape());
  check_rows("rms_norm", "inverse_rms", inverse_rms, x);
  rms_norm_cpu(x.f32(), weight.f32(), eps, x.rows(), x.cols(), y.f32(), inverse_rms.f32());
}

void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& inverse_rms, Tensor dx,
                       bool add_to_dx, const GradientSum& dweight) {
  check_shape("rms_norm_backward", "dy", dy, x.shape());
  check_weight("rms_norm_backward", "weight", weight, x);
  check_rows("rms_norm_backward", "inverse_rms", inverse_rms, x);
  check_shape("rms_norm_backward", "dx", dx, x.shape());
  check_sum("rms_norm_backward", "dweight", dweight, x);
  rms_norm_backward_cpu(dy.f32(), x.f32(), weight.f32(), inverse_rms.f32(), x.rows(), x.cols(), dx.f32(), add_to_dx,
                        dweight);
}

void layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps, Tensor y, Tensor mean,
                Tensor inverse_deviation) {
  check_weight("layer_norm", "weight", weight, x);
  check_weight("layer_norm", "bias", bias, x);
  check_shape("layer_norm", "y", y, x.shape());
  check_rows("layer_norm", "mean", mean, x);
  check_rows("layer_norm", "inverse_deviation", inverse_deviation, x);
  layer_norm_cpu(x.f32(), weight.f32(), bias.f32(), eps, x.rows(), x.cols(), y.f32(), mean.f32(),
                 inverse_deviation.f32());
}

void layer_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& mean,
                         const Tensor& inverse_deviation, Tensor dx, bool add_to_dx, const GradientSum& dweight,
                         const GradientSum& dbias) {
  check_shape("layer_norm_backward", "dy", dy, x.shape());
  check_weight("layer_norm_backward", "weight", weight, x);
  check_rows("layer_norm_backward", "mean", mean, x);
  check_rows("layer_norm_backward", "inverse_deviation", inverse_deviation, x);
  check_shape("layer_norm_backward", "dx", dx, x.shape());
  check_sum("layer_norm_backward", "dweight", dweight, x);
  check_sum("layer_norm_backward", "dbias", dbias, x);
  layer_norm_backward_cpu(dy.f32(), x.f32(), weight.f32(), mean.f32(), inverse_deviation.f32(), x.rows(), x.cols(),
                          dx.f32(), add_to_dx, dweight, dbias);
}

}  // namespace switchyard
