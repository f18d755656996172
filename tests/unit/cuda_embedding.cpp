// Token embedding on a CUDA device against the CPU's.
#include "comm/device/host_view.h"
#include "layers/ops/embedding.h"
#include "tests/support/catch.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/op_test.h"

namespace switchyard::test {
namespace {

struct Case {
  std::int64_t tokens, vocabulary, width;
};
const std::vector<Case> cases = {{1, 1, 1}, {333, 41, 70}, {700, 2, 16}, {64, 1000, 264}};

template <class T>
std::vector<T> host(Device& device, T* memory, std::int64_t n) {
  const HostView<T> view(device, memory, n);
  return {view.span().begin(), view.span().end()};
}

TEST_CASE("rows are looked up") {
  Device& cuda = cuda_device();
  for (const auto [count, vocabulary, width] : cases) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      const auto tokens = random_indices(count, vocabulary, 1);
      const auto table = rounded(random_values(vocabulary * width, 2), dtype);
      const auto y_on = [&](Device& device, DType as) {
        const DeviceTensor y(device, Shape{count, width}, as);
        embedding(DeviceTensor(device, tokens), DeviceTensor(device, table, {vocabulary, width}), y);
        return y.values();
      };
      CHECK(same_bits(y_on(cuda, dtype), y_on(cpu_device(), DType::F32)));
    }
  }
}

// One partial a token, its rows added in token order: the CPU's bits, fixed point and fp32.
TEST_CASE("gradients are the CPU's bits") {
  Device& cuda = cuda_device();
  for (const auto [count, vocabulary, width] : cases) {
    for (const DType dtype : {DType::F32, DType::BF16}) {
      for (const Numerics numerics : {Numerics::Fast, Numerics::Reproducible}) {
        const auto tokens = random_indices(count, vocabulary, 3);
        const auto dy = rounded(random_values(count * width, 4), dtype);
        std::vector<std::vector<float>> plain;
        std::vector<std::vector<std::int64_t>> exact;
        for (Device* const device : {&cpu_device(), &cuda}) {
          const DType as = device == &cuda ? dtype : DType::F32;
          Parameter table(*device, "table", {vocabulary, width}, {}, false, numerics);
          const DeviceTensor on_device(*device, dy, {count, width}, as);
          for (int twice = 0; twice < 2; ++twice) {
            embedding_backward(on_device, DeviceTensor(*device, tokens), table.gradient());
          }
          CHECK_FALSE(table.non_finite());
          const GradientSum& sum = table.gradient();
          if (sum.exact != nullptr) exact.push_back(host(*device, sum.exact, sum.size));
          if (sum.plain != nullptr) plain.push_back(host(*device, sum.plain, sum.size));
        }
        CAPTURE(count, vocabulary, width, name_of(dtype));
        if (!exact.empty()) CHECK(exact[0] == exact[1]);
        if (!plain.empty()) {
          CHECK(same_bits(plain[0], plain[1]));
          plain[1][0] += 1;  // planted
          CHECK_FALSE(same_bits(plain[0], plain[1]));
        }
      }
    }
  }
}

TEST_CASE("a token beyond the vocabulary reads and adds nothing, and the host tells it before") {
  Device& cuda = cuda_device();
  const std::vector<std::int32_t> tokens = {1, 4711, -1};
  CHECK_THROWS_WITH(check_tokens(tokens, 3), "token 4711 at position 1 is beyond the vocabulary of 3");
  const DeviceTensor y(cuda, Shape{3, 2});
  embedding(DeviceTensor(cuda, tokens), DeviceTensor(cuda, {1, 2, 3, 4, 5, 6}, {3, 2}), y);
  const auto values = y.values();
  CHECK((values[0] == 3 && values[1] == 4 && std::isnan(values[2]) && std::isnan(values[5])));
  Parameter table(cuda, "table", {3, 2}, {}, false, Numerics::Fast);
  embedding_backward(DeviceTensor(cuda, {1, 2, 3, 4, 5, 6}, {3, 2}), DeviceTensor(cuda, tokens), table.gradient());
  CHECK(host(cuda, table.gradient().plain, 6) == std::vector<float>{0, 0, 1, 2, 0, 0});
}

}  // namespace
}  // namespace switchyard::test
