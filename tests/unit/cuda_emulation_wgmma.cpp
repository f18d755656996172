// wgmma as it is emulated: what it computes from each layout of shared memory, against sums in double precision, and
// what a kernel must not forget.
#include "layers/ops/wgmma.cuh"
#include "tests/support/catch.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <wgmma_emulated.h>

namespace switchyard::cuda {
namespace {

constexpr unsigned positions = 64;

// Memory that kernels may touch.
class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t bytes) { REQUIRE(cudaMalloc(&memory_, bytes) == cudaSuccess); }
  ~DeviceMemory() { cudaFree(memory_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  template <class T>
  T* at() const {
    return static_cast<T*>(memory_);
  }

 private:
  void* memory_ = nullptr;
};

float element(unsigned operand, unsigned line, unsigned position) {
  const unsigned state = (operand * 7919 + line * 131 + position) * 2654435761U;
  return __bfloat162float(__float2bfloat16_rn(static_cast<float>(state >> 16) / 65536.0F - 0.5F));
}

// What a kernel may get wrong.
enum class Fault {
  None,
  Permutation,      // units lie where they would without the swizzle
  NoProxyFence,     // fence.proxy.async
  EarlyProxyFence,  // before the copy was waited for
  NoFence,          // wgmma.fence
  NoWait,           // the sums are read while they are made
  EarlyReuse,       // a stage is written to while wgmma reads it
  Touched,          // sums are written to while wgmma works on them
  Unaligned,        // the squares begin where no pattern does
  Apart             // a warp names another matrix
};

// Lays the operand's squares out as wgmma.cuh says, by all threads of the block.
template <bool ByLines>
void lay_out(bf16* squares, unsigned operand, unsigned lines, Fault fault, const bf16* zeros) {
  const unsigned rows = ByLines ? lines : positions * (lines / 64);
  for (unsigned i = threadIdx.x; i < rows * 8; i += blockDim.x) {
    const unsigned row = i / 8, unit = i % 8;
    bf16* const to = squares + row * 64 + (fault == Fault::Permutation ? unit : unit ^ row % 8) * 8;
    if (zeros != nullptr) {
      copy_async<16>(to, zeros, true);
      continue;
    }
    Vector<bf16> v;
    for (unsigned e = 0; e < 8; ++e) {
      const unsigned line = ByLines ? row : row / 64 * 64 + unit * 8 + e, position = ByLines ? unit * 8 + e : row % 64;
      v.at[e] = from_float<bf16>(element(operand, line, position));
    }
    store_for_wgmma(v, to);
  }
}

// Sums [64 Groups, N] over 64 positions; `start` is in them before.
template <int Groups, int N, bool ALines, bool BLines>
void product(float* sums, const bf16* zeros, float start, Fault fault) {
  auto* const memory = static_cast<bf16*>(cuda_emulation::dynamic_shared());
  const std::uint32_t lies_at = shared_address(memory);
  const std::uint32_t address = (lies_at + 1023) / 1024 * 1024 + (fault == Fault::Unaligned ? 512 : 0);
  bf16* const a = memory + (address - lies_at) / 2;
  bf16* const b = a + Groups * 64 * positions;
  if (fault == Fault::EarlyProxyFence) show_to_wgmma();
  lay_out<ALines>(a, 0, Groups * 64, fault, nullptr);
  lay_out<BLines>(b, 1, N, fault, nullptr);
  if (fault != Fault::NoProxyFence && fault != Fault::EarlyProxyFence) show_to_wgmma();
  __syncthreads();

  float c[N / 2];
  for (float& sum : c) sum = start;
  const unsigned apart = fault == Fault::Apart && threadIdx.x / 32 == 2 ? 1024 : 0;
  const SharedMatrix first_a = shared_matrix(address + threadIdx.x / 128 * square_bytes);
  const SharedMatrix first_b = shared_matrix(address + Groups * square_bytes + apart);
  if (fault != Fault::NoFence) begin_wgmma();
  for (unsigned k = 0; k < positions / 16; ++k) {
    wgmma<N, ALines, BLines>(c, first_a.at(k * next_positions<ALines>), first_b.at(k * next_positions<BLines>));
    if (k == 1) commit_wgmma();
  }
  commit_wgmma();
  wait_for_wgmma<1>();
  if (fault == Fault::EarlyReuse) {
    __syncthreads();  // all have given their products
    lay_out<BLines>(b, 1, N, fault, zeros);
  }
  if (fault == Fault::Touched) c[0] = 0;
  if (fault != Fault::NoWait) wait_for_sums(c);
  const unsigned thread = threadIdx.x, row = thread / 32 * 16 + thread % 32 / 4, column = thread % 4 * 2;
  for (unsigned i = 0; i < N / 2; ++i) sums[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + column + i % 2] = c[i];
  if (fault == Fault::EarlyReuse || fault == Fault::NoWait) wait_for_sums(c);
}

// The largest error; NaN is infinity.
template <int Groups, int N, bool ALines, bool BLines>
double error_of(Fault fault) {
  const DeviceMemory sums(Groups * 64 * N * sizeof(float)), zeros(16);
  REQUIRE(cudaMemsetAsync(zeros.at<void>(), 0, 16, nullptr) == cudaSuccess);
  constexpr float start = 0.25F;
  cuda_emulation::run("product", 1, Groups * 128, 1024 + (Groups * 64 + N) * positions * sizeof(bf16),
                      [&] { product<Groups, N, ALines, BLines>(sums.at<float>(), zeros.at<bf16>(), start, fault); });
  std::vector<float> got(Groups * 64 * N);
  REQUIRE(cudaMemcpy(got.data(), sums.at<void>(), got.size() * sizeof(float), cudaMemcpyDeviceToHost) == cudaSuccess);
  double worst = 0;
  for (unsigned i = 0; i < Groups * 64; ++i) {
    for (unsigned j = 0; j < N; ++j) {
      double wanted = static_cast<double>(start);
      for (unsigned p = 0; p < positions; ++p) {
        wanted += static_cast<double>(element(0, i, p)) * static_cast<double>(element(1, j, p));
      }
      const double error = std::abs(static_cast<double>(got[i * N + j]) - wanted);
      worst = error <= worst ? worst : std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
    }
  }
  return worst;
}

TEST_CASE("wgmma's sums are right in all layouts and sizes") {
  const auto check = [](auto n) {
    constexpr int size = decltype(n)::value;
    CHECK(error_of<2, size, true, true>(Fault::None) < 1e-5);
    CHECK(error_of<1, size, true, false>(Fault::None) < 1e-5);
    CHECK(error_of<1, size, false, true>(Fault::None) < 1e-5);
    CHECK(error_of<2, size, false, false>(Fault::None) < 1e-5);
  };
  check(std::integral_constant<int, 64>());
  check(std::integral_constant<int, 128>());
  check(std::integral_constant<int, 256>());
}

TEST_CASE("another permutation, sums that are read too early and stages that are used too early give wrong numbers") {
  CHECK(error_of<2, 128, true, true>(Fault::Permutation) > 1e-2);
  CHECK(error_of<2, 128, false, false>(Fault::Permutation) > 1e-2);
  CHECK(error_of<1, 64, true, true>(Fault::NoWait) > 1e30);
  CHECK(error_of<1, 64, true, true>(Fault::EarlyReuse) > 1e-2);
  CHECK(error_of<2, 128, false, false>(Fault::EarlyReuse) > 1e-2);
}

TEST_CASE("what wgmma must not be given is told") {
  const auto told = [](Fault fault) -> std::string {
    try {
      error_of<2, 64, false, true>(fault);
    } catch (const std::logic_error& error) {
      return error.what();
    }
    return "nothing";
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(told(Fault::NoProxyFence), Contains("written without a fence.proxy.async since"));
  CHECK_THAT(told(Fault::EarlyProxyFence), Contains("written without a fence.proxy.async since"));
  CHECK_THAT(told(Fault::NoFence), Contains("without a wgmma.fence"));
  CHECK_THAT(told(Fault::Touched), Contains("sums were written to while wgmma worked on them"));
  CHECK_THAT(told(Fault::Unaligned), Contains("begins where no pattern of the swizzle does"));
  CHECK_THAT(told(Fault::Apart), Contains("different products"));
  CHECK(told(Fault::None) == "nothing");
}

}  // namespace
}  // namespace switchyard::cuda
