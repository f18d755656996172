// LABEL slow
// RMSNorm and LayerNorm, forward and backward, on a CUDA device against the CPU's.
#include "comm/device/host_view.h"
#include "layers/ops/activation.h"
#include "layers/ops/norm.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

namespace switchyard::test {
namespace {

struct Case {
  std::int64_t rows, width;
  bool rms, add;
  DType dtype;
  Numerics numerics;
};

std::vector<float> gradient_of(const Parameter& parameter) {
  const GradientSum& sum = parameter.gradient();
  std::vector<float> result;
  if (sum.exact != nullptr) {
    const HostView<std::int64_t> exact(*sum.device, sum.exact, sum.size);
    for (const std::int64_t fixed : exact.span()) {
      result.push_back(static_cast<float>(static_cast<double>(fixed) * 0x1p-50));
    }
  } else {
    const HostView<float> plain(*sum.device, sum.plain, sum.size);
    result.assign(plain.span().begin(), plain.span().end());
  }
  return result;
}

struct Results {
  std::vector<float> y, inverse, mean, dx, dweight, dbias, sum, y_of_sum, inverse_of_sum;
};

// The same numbers on any device; on CUDA the activations have the case's type.
Results run(const Case& c, Device& device, DType as) {
  constexpr float eps = 1e-5F;
  const Shape matrix{c.rows, c.width};
  auto values = random_values(c.rows * c.width, 1, 2);
  for (float& x : values) x += 0.5F;
  const DeviceTensor x(device, rounded(values, c.dtype), matrix, as);
  const DeviceTensor dy(device, rounded(random_values(c.rows * c.width, 2), c.dtype), matrix, as);
  const DeviceTensor weight(device, random_values(c.width, 3), {c.width});
  const DeviceTensor bias(device, random_values(c.width, 4), {c.width});
  const DeviceTensor y(device, matrix, as);
  const DeviceTensor inverse(device, Shape{c.rows}), mean(device, Shape{c.rows});
  const DeviceTensor dx = c.add ? DeviceTensor(device, rounded(random_values(c.rows * c.width, 5), c.dtype), matrix, as)
                                : DeviceTensor(device, matrix, as);
  Parameter dweight(device, "weight", {c.width}, {}, false, c.numerics);
  Parameter dbias(device, "bias", {c.width}, {}, false, c.numerics);
  if (c.rms) {
    rms_norm(x, weight, eps, y, inverse);
  } else {
    layer_norm(x, weight, bias, eps, y, mean, inverse);
  }
  const DeviceTensor sum(device, rounded(random_values(c.rows * c.width, 6), c.dtype), matrix, as);
  const DeviceTensor y_of_sum(device, matrix, as), inverse_of_sum(device, Shape{c.rows});
  if (c.rms) {
    add_rms_norm(x, sum, weight, eps, y_of_sum, inverse_of_sum);
  } else {
    add_layer_norm(x, sum, weight, bias, eps, y_of_sum, DeviceTensor(device, Shape{c.rows}), inverse_of_sum);
  }
  for (int twice = 0; twice < 2; ++twice) {  // sums go on, and so does dx where it is added to
    if (c.rms) {
      rms_norm_backward(dy, x, weight, inverse, dx, c.add, dweight.gradient());
    } else {
      layer_norm_backward(dy, x, weight, mean, inverse, dx, c.add, dweight.gradient(), dbias.gradient());
    }
  }
  return {y.values(),   inverse.values(),     mean.values(),
          dx.values(),  gradient_of(dweight), gradient_of(dbias),
          sum.values(), y_of_sum.values(),    inverse_of_sum.values()};
}

double size_of_values(const std::vector<float>& values) {
  double size = 1;
  for (const float value : values) size = std::max(size, std::abs(static_cast<double>(value)));
  return size;
}

double difference(const Results& got, const Results& wanted, bool rms) {
  double worst = 0;
  for (const auto member : {&Results::y, &Results::inverse, &Results::mean, &Results::dx, &Results::dweight,
                            &Results::dbias, &Results::sum, &Results::y_of_sum, &Results::inverse_of_sum}) {
    if (rms && (member == &Results::mean || member == &Results::dbias)) continue;
    worst = std::max(worst, worst_error(got.*member, wanted.*member, size_of_values(wanted.*member)));
  }
  return worst;
}

double tolerance(DType dtype) {
  return dtype == DType::F32 ? 1e-5 : 2e-2;
}

TEST_CASE("norms and their gradients are the CPU's") {
  Device& cuda = cuda_device();
  // Odd widths, whole vectors, rows that do not fit into a thread's registers (the last two); blocks of several rows.
  for (const auto& [rows, width] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {1, 2}, {3, 7}, {17, 64}, {70, 129}, {33, 512}, {270, 8}, {3, 4224}, {2, 8328}}) {
    for (const bool rms : {true, false}) {
      for (const DType dtype : {DType::F32, DType::BF16}) {
        const bool add = (rows + width) % 2 == 0;
        for (const Numerics numerics : {Numerics::Fast, Numerics::Reproducible}) {
          const Case c{rows, width, rms, add, dtype, numerics};
          CAPTURE(rows, width, rms, add, name_of(dtype));
          CHECK(difference(run(c, cuda, dtype), run(c, cpu_device(), DType::F32), rms) < tolerance(dtype));
        }
      }
    }
  }
}

TEST_CASE("the same bits from run to run, and the comparison sees one wrong element") {
  const Case c{301, 200, false, true, DType::F32, Numerics::Fast};
  const Results first = run(c, cuda_device(), DType::F32);
  Results second = run(c, cuda_device(), DType::F32);
  CHECK(same_bits(first.dx, second.dx));
  CHECK(same_bits(first.dweight, second.dweight));
  CHECK(same_bits(first.dbias, second.dbias));
  second.dbias[77] += 1e-2F;  // planted
  CHECK(difference(second, run(c, cpu_device(), DType::F32), false) > tolerance(DType::F32));
}

TEST_CASE("a sum and its norm in one pass have the bits of the two one after the other") {
  Device& cuda = cuda_device();
  for (const std::int64_t width : {7, 512, 8328}) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      const Shape matrix{5, width};
      const DeviceTensor x(cuda, random_values(5 * width, 1), matrix, dtype),
          weight(cuda, random_values(width, 2), {width});
      const DeviceTensor at_once(cuda, random_values(5 * width, 3), matrix, dtype);
      const DeviceTensor in_turn(cuda, random_values(5 * width, 3), matrix, dtype);
      const DeviceTensor y(cuda, matrix, dtype), wanted(cuda, matrix, dtype), inverse(cuda, Shape{5});
      add_rms_norm(x, at_once, weight, 1e-5F, y, inverse);
      add_in_place(x, in_turn);
      rms_norm(in_turn, weight, 1e-5F, wanted, inverse);
      CHECK(same_bits(at_once.values(), in_turn.values()));
      CHECK(same_bits(y.values(), wanted.values()));
    }
  }
}

TEST_CASE("a gradient that is not finite is marked on the device") {
  Device& cuda = cuda_device();
  const DeviceTensor x(cuda, {1, 2, 3, 4}, {2, 2});
  const DeviceTensor dy(cuda, {1, std::nanf(""), 3, 4}, {2, 2});
  const DeviceTensor weight(cuda, {1, 1}, {2});
  const DeviceTensor inverse(cuda, {1, 1}, {2}), dx(cuda, Shape{2, 2});
  Parameter sum(cuda, "weight", {2}, {}, false, Numerics::Reproducible);
  CHECK_FALSE(sum.non_finite());
  rms_norm_backward(dy, x, weight, inverse, dx, false, sum.gradient());
  CHECK(sum.non_finite());
}

}  // namespace
}  // namespace switchyard::test
