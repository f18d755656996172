// LABEL slow
// Attention on a CUDA device against the CPU's, forward, backward and while decoding: fp32 to its rounding, bf16 on
// tensor cores to bf16's.
#include "layers/attention/attention.h"
#include "layers/attention/attention_cudnn.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

#include <cmath>
#include <cstdio>
#include <vector>

using namespace switchyard;
using namespace switchyard::test;

namespace {

struct Inputs {
  std::vector<float> q, k, v, dout;
};
Inputs make_inputs(const AttentionShape& s, DType dtype, double deviation = 1) {
  const AttentionShapes of(s);
  return {rounded(random_values(of.q.size(), 1, deviation), dtype),
          rounded(random_values(of.k.size(), 2, deviation), dtype), rounded(random_values(of.v.size(), 3), dtype),
          rounded(random_values(of.out.size(), 4), dtype)};
}

struct Results {
  std::vector<float> out, log_sum_exp, dq, dk, dv;
};

// Backward gets the out and log_sum_exp of `forward`, where that is given.
Results run(Device& device, const AttentionShape& s, const Inputs& in, DType dtype, const Results* forward = nullptr,
            AttentionBy by = AttentionBy::Ours) {
  const AttentionShapes of(s);
  const DeviceTensor q(device, in.q, of.q, dtype), k(device, in.k, of.k, dtype);
  const DeviceTensor v(device, in.v, of.v, dtype), dout(device, in.dout, of.out, dtype);
  const DeviceTensor out(device, of.out, dtype), log_sum_exp(device, of.log_sum_exp);
  const DeviceTensor dq(device, of.q, dtype), dk(device, of.k, dtype), dv(device, of.v, dtype);
  Arena scratch(device);
  attention(s, q, k, v, scratch, out, log_sum_exp, by);
  if (forward != nullptr) {
    const DeviceTensor given(device, forward->out, of.out, dtype), sums(device, forward->log_sum_exp, of.log_sum_exp);
    attention_backward(s, dout, q, k, v, given, sums, scratch, dq, dk, dv, by);
  } else {
    attention_backward(s, dout, q, k, v, out, log_sum_exp, scratch, dq, dk, dv, by);
  }
  CHECK(scratch.in_use() == Bytes(0));
  return {out.values(), log_sum_exp.values(), dq.values(), dk.values(), dv.values()};
}

double worst(const std::vector<float>& got, const std::vector<float>& wanted) {
  return worst_error(got, wanted, 1.0);
}

// The largest error of all results.
double difference(const Results& got, const Results& wanted) {
  double largest = worst(got.log_sum_exp, wanted.log_sum_exp);
  for (const auto part : {&Results::out, &Results::dq, &Results::dk, &Results::dv}) {
    largest = std::max(largest, worst(got.*part, wanted.*part));
  }
  return largest;
}

double tolerance(DType dtype) {
  return dtype == DType::F32 ? 1e-5 : 2e-2;
}

double error_on(Device& device, const AttentionShape& s, DType dtype, AttentionBy by = AttentionBy::Ours) {
  const Inputs in = make_inputs(s, dtype);
  Results wanted = run(cpu_device(), s, in, DType::F32);
  // What backward reads of forward is what was kept of it.
  const Results kept{rounded(wanted.out, dtype), wanted.log_sum_exp, {}, {}, {}};
  wanted = run(cpu_device(), s, in, DType::F32, &kept);
  return difference(run(device, s, in, dtype, &kept, by), wanted);
}

}  // namespace

TEST_CASE("attention and its gradients are the CPU's in fp32") {
  Device& device = cuda_device();
  for (const AttentionShape& s : {
           AttentionShape{1, 1, 1, 1, 1},
           {1, 7, 1, 1, 3},
           {3, 13, 6, 2, 5},
           {1, 64, 2, 2, 64},
           {2, 97, 3, 1, 33},
           {1, 130, 2, 1, 80},
           {1, 70, 1, 1, 130},
           {1, 20, 1, 1, 300},
           {1, 70, 2, 1, 24, 7},  // values narrower than keys,
           {2, 33, 2, 2, 9, 40},  // and wider
       }) {
    CAPTURE(s.sequences, s.positions, s.heads, s.kv_heads, s.head_dim, s.value_dim);
    CHECK(error_on(device, s, DType::F32) < tolerance(DType::F32));
  }
}

TEST_CASE("attention and its gradients are the CPU's in bf16") {
  Device& device = cuda_device();
  for (const AttentionShape& s : {
           AttentionShape{1, 1, 1, 1, 16},
           {2, 5, 2, 1, 8},
           {1, 64, 2, 2, 64},
           {2, 131, 4, 2, 32},
           {1, 200, 2, 1, 48},
           {1, 257, 1, 1, 16},
           {1, 75, 2, 1, 80},
           {1, 90, 2, 1, 96},
           {1, 150, 2, 1, 128},
           {1, 65, 1, 1, 160},
           {1, 70, 2, 1, 192},
           {1, 100, 1, 1, 256},
           {1, 70, 2, 2, 192, 128},
           {1, 75, 2, 1, 48, 32},
           {1, 75, 2, 1, 32, 48},  // values wider than keys,
           {1, 40, 2, 1, 5},       // no multiple of 8, and
           {1, 20, 1, 1, 264},     // wider than the widest tile: the tiled kernels
       }) {
    CAPTURE(s.sequences, s.positions, s.heads, s.kv_heads, s.head_dim, s.value_dim);
    CHECK(error_on(device, s, DType::BF16) < tolerance(DType::BF16));
  }
}

TEST_CASE("cuDNN's attention and its gradients are the CPU's in bf16") {
  Device& device = cuda_device();
  if (!cudnn::why_not().empty()) {
    std::printf("SKIPPED: cuDNN's attention: %s\n", cudnn::why_not().c_str());
    return;
  }
  for (const AttentionShape& s : {
           AttentionShape{1, 2, 1, 1, 16},
           {2, 64, 2, 2, 64},
           {2, 131, 4, 2, 32},
           {1, 257, 4, 1, 80},
           {3, 150, 2, 1, 128},
       }) {
    CAPTURE(s.sequences, s.positions, s.heads, s.kv_heads, s.head_dim, s.value_dim);
    CHECK(cudnn::takes(s, DeviceTensor(device, AttentionShapes(s).q, DType::BF16)));
    CHECK(error_on(device, s, DType::BF16, AttentionBy::Cudnn) < tolerance(DType::BF16));
  }
  // Not cuDNN's, and right all the same.
  const AttentionShape odd{1, 40, 2, 1, 5};
  CHECK_FALSE(cudnn::takes(odd, DeviceTensor(device, AttentionShapes(odd).q, DType::BF16)));
  CHECK(error_on(device, odd, DType::BF16, AttentionBy::Cudnn) < tolerance(DType::BF16));
}

TEST_CASE("the comparison catches a row's change by three times the tolerance") {
  const AttentionShape s{1, 20, 2, 1, 16};
  const Inputs in = make_inputs(s, DType::BF16);
  const Results wanted = run(cpu_device(), s, in, DType::F32);
  Results got = wanted;
  got.dk[17] += 0.06F * (std::abs(got.dk[17]) + 1);
  CHECK(difference(got, wanted) > tolerance(DType::BF16));
}

TEST_CASE("the same bits come from run to run, and for a sequence whatever stands beside it") {
  Device& device = cuda_device();
  for (const DType dtype : {DType::F32, DType::BF16}) {
    const AttentionShape both{2, 67, 4, 2, 32};
    const Inputs in = make_inputs(both, dtype);
    const Results first = run(device, both, in, dtype), again = run(device, both, in, dtype);
    AttentionShape one = both;
    one.sequences = 1;
    const auto last = [](const std::vector<float>& x) {
      return std::vector<float>(x.begin() + isize(x.size() / 2), x.end());
    };
    const Results alone = run(device, one, {last(in.q), last(in.k), last(in.v), last(in.dout)}, dtype);
    for (const auto part : {&Results::out, &Results::log_sum_exp, &Results::dq, &Results::dk, &Results::dv}) {
      CHECK(same_bits(first.*part, again.*part));
      CHECK(same_bits(last(first.*part), alone.*part));
    }
  }
}

TEST_CASE("large scores neither overflow nor lose the largest on a CUDA device") {
  Device& device = cuda_device();
  const AttentionShape s{1, 140, 2, 1, 16};
  for (const DType dtype : {DType::F32, DType::BF16}) {
    const Inputs in = make_inputs(s, dtype, 12);  // scores up to several hundred
    const Results wanted = run(cpu_device(), s, in, DType::F32), got = run(device, s, in, dtype);
    CHECK(worst(got.log_sum_exp, wanted.log_sum_exp) < 1e-5);
    CHECK(worst(got.out, wanted.out) < (dtype == DType::F32 ? 2e-3 : 2e-2));
  }
}

TEST_CASE("a NaN comes out where it is seen on a CUDA device") {
  Device& device = cuda_device();
  const AttentionShape s{1, 200, 1, 1, 16};
  for (const DType dtype : {DType::F32, DType::BF16}) {
    Inputs in = make_inputs(s, dtype);
    in.k[usize(150 * s.head_dim)] = std::nanf("");
    const Results got = run(device, s, in, dtype);
    for (std::int64_t i = 0; i < s.positions; ++i) {
      REQUIRE(std::isnan(got.out[usize(i * s.head_dim)]) == (i >= 150));
    }
  }
}

TEST_CASE("decoding on a CUDA device gives the CPU's rows") {
  Device& device = cuda_device();
  for (const DType dtype : {DType::F32, DType::BF16}) {
    for (const AttentionShape& s : {AttentionShape{1, 1, 1, 1, 1}, AttentionShape{1, 230, 4, 2, 20},
                                    AttentionShape{1, 131, 2, 1, 160}, AttentionShape{1, 131, 2, 1, 40, 24}}) {
      const Inputs in = make_inputs(s, dtype);
      // What lies at one position more must not be read.
      const Shape of_k{s.positions + 1, s.kv_heads * s.head_dim}, of_v{of_k[0], s.kv_heads * s.value_width()};
      std::vector<float> k = in.k, v = in.v;
      k.resize(usize(of_k.size()), std::nanf(""));
      v.resize(usize(of_v.size()), std::nanf(""));
      for (const std::int64_t rows : {std::int64_t{1}, std::min<std::int64_t>(s.positions, 3)}) {
        const std::vector<float> last(in.q.end() - isize(usize(rows * s.heads * s.head_dim)), in.q.end());
        const auto decode = [&](Device& on, DType as) {
          const DeviceTensor q(on, last, {rows, s.heads * s.head_dim}, as), keys(on, k, of_k, as),
              values(on, v, of_v, as);
          const DeviceTensor out(on, Shape{rows, s.heads * s.value_width()}, as);
          attention_decode(s, q, keys, values, s.positions, out);
          return out.values();
        };
        CHECK(worst(decode(device, dtype), decode(cpu_device(), DType::F32)) < tolerance(dtype));
      }
    }
  }
}
