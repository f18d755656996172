// Rotary position embedding on a CUDA device against the CPU's.
#include "layers/attention/rope.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

namespace switchyard::test {
namespace {

std::vector<float> turned(Device& device, std::int64_t rows, std::int64_t positions, std::int64_t heads,
                          std::int64_t head_dim, bool back, DType dtype, DType as) {
  const DeviceTensor table(device, Shape{positions, head_dim});
  rope_table(3, positions, 10000, table);
  const std::int64_t width = heads * head_dim;
  const DeviceTensor x(device, rounded(random_values(rows * width, 1), dtype), {rows, width}, as);
  back ? rope_backward(table, head_dim, x) : rope(table, head_dim, x);
  return x.values();
}

TEST_CASE("heads are turned as on the CPU, there and back") {
  Device& cuda = cuda_device();
  for (const std::int64_t head_dim : {2, 6, 16, 64, 128}) {
    for (const std::int64_t heads : {1, 3, 8}) {
      for (const DType dtype : {DType::F32, DType::BF16}) {
        for (const bool back : {false, true}) {
          CAPTURE(head_dim, heads, name_of(dtype), back);
          const double limit = dtype == DType::F32 ? 1e-6 : 2e-2;
          const auto got = turned(cuda, 21, 7, heads, head_dim, back, dtype, dtype);
          const auto wanted = [&](bool there_or_back) {
            return turned(cpu_device(), 21, 7, heads, head_dim, there_or_back, dtype, DType::F32);
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
