// Rotary position embedding on a CUDA device against the CPU's.
#include "layers/attention/rope.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

namespace switchyard::test {
namespace {

// Queries, and keys behind them.
std::vector<float> turned(Device& device, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim, bool back,
                          DType dtype, DType as) {
  constexpr std::int64_t rows = 21, positions = 7;
  const DeviceTensor table(device, Shape{positions, head_dim});
  rope_table(3, positions, 10000, table);
  const Shape of_q{rows, heads * head_dim}, of_k{rows, kv_heads * head_dim};
  const DeviceTensor q(device, rounded(random_values(of_q.size(), 1), dtype), of_q, as);
  const DeviceTensor k(device, rounded(random_values(of_k.size(), 2), dtype), of_k, as);
  back ? rope_backward(table, head_dim, q, k) : rope(table, head_dim, q, k);
  std::vector<float> both = q.values();
  const std::vector<float> keys = k.values();
  both.insert(both.end(), keys.begin(), keys.end());
  return both;
}

TEST_CASE("heads are turned as on the CPU, there and back") {
  Device& cuda = cuda_device();
  for (const std::int64_t head_dim : {2, 6, 16, 64, 128, 320}) {
    for (const auto& [heads, kv_heads] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 1}, {20, 5}}) {
      for (const DType dtype : {DType::F32, DType::BF16}) {
        for (const bool back : {false, true}) {
          CAPTURE(head_dim, heads, kv_heads, name_of(dtype), back);
          const double limit = dtype == DType::F32 ? 1e-6 : 2e-2;
          const auto got = turned(cuda, heads, kv_heads, head_dim, back, dtype, dtype);
          const auto wanted = [&](bool there_or_back) {
            return turned(cpu_device(), heads, kv_heads, head_dim, there_or_back, dtype, DType::F32);
          };
          CHECK(worst_error(got, wanted(back), 1) < limit);
          CHECK(worst_error(got, wanted(!back), 1) > limit);  // planted: the other way round
        }
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::test
