// LABEL slow
// The graphs of attention that cuDNN is given, without a GPU: cuDNN finds an engine for them on GPUs that are described
// to it, compiles its kernels and makes a plan. That the numbers are right is for a GPU to show
// (unit/cuda_attention.cpp there, and the comparison before the first use).
#include "layers/attention/attention_cudnn.h"
#include "layers/attention/check_cudnn.h"
#include "tests/support/catch.h"

#include <cstdio>
#include <vector>

#include <dlfcn.h>
#include <fmt/core.h>

using namespace switchyard;

namespace {

struct Gpu {
  const char* name;
  int version, multiprocessors, shared_memory, clock, memory_clock, l2_cache;
};
constexpr Gpu a100 = {"NVIDIA A100-SXM4-80GB", 800, 108, 166912, 1410000, 1593000, 41943040};
constexpr Gpu h100 = {"NVIDIA H100 80GB HBM3", 900, 132, 232448, 1980000, 2619000, 52428800};

// As cuDNN writes the properties of a GPU that is there.
std::string described(const Gpu& gpu) {
  return fmt::format(
      R"({{"maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536,)"
      R"("multiProcessorCount": {}, "warpSize": 32, "maxSharedMemoryPerBlock": 49152,)"
      R"("maxSharedMemoryPerBlockOptin": {}, "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536,)"
      R"("maxCtasPerSM": 32, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "pciDeviceId": 0, "isTccDriver": 0,)"
      R"("supportCoopLaunch": 1, "totalGlobalMem": 85029158912, "smClockRateKHz": {}, "memClockRateKHz": {},)"
      R"("l2CacheSize": {}, "cudaDeviceId": 0, "deviceVer": {}, "driverVer": 13000, "deviceName": "{}"}})",
      gpu.multiprocessors, gpu.shared_memory, gpu.clock, gpu.memory_clock, gpu.l2_cache, gpu.version, gpu.name);
}

// Whether cuDNN is here; says so where it is not.
bool has_cudnn() {
  // Before the library: it asks for the driver by name, and gets what is loaded under that name.
  REQUIRE(::dlopen(DRIVER_STAND_IN, RTLD_NOW | RTLD_GLOBAL) != nullptr);
  if (cudnn::why_not().empty()) return true;
  std::printf("SKIPPED: cuDNN's plans: %s\n", cudnn::why_not().c_str());
  return false;
}

}  // namespace

TEST_CASE("cuDNN makes plans of attention forward and backward for an A100 and an H100") {
  if (!has_cudnn()) return;
  const AttentionShape mixtral{1, 4096, 32, 8, 128}, mla{1, 1024, 16, 16, 192, 128};
  for (const auto& [gpu, shape] :
       {std::pair<Gpu, AttentionShape>{h100, mixtral}, {h100, {2, 130, 4, 1, 80}}, {h100, mla}, {a100, mixtral}}) {
    CAPTURE(gpu.name, shape.sequences, shape.positions, shape.heads, shape.kv_heads, shape.head_dim, shape.value_dim);
    const cudnn::PlanFacts forward = cudnn::plan_for(described(gpu), shape, false);
    const cudnn::PlanFacts backward = cudnn::plan_for(described(gpu), shape, true);
    constexpr std::int64_t small = 1 << 20;  // nothing of the size of the scores
    CHECK(forward.workspace <= small);
    // What is asked for is what the plan of memory reckons with, where the GPU is a Hopper; an Ampere takes room for
    // a second copy of dq's sums.
    const std::int64_t rows = shape.sequences * shape.positions * shape.heads;
    const std::int64_t reckoned = cudnn::backward_memory(shape).value() - rows * (shape.head_dim + 1) * 4;
    const std::int64_t more = gpu.version == 800 ? rows * shape.head_dim * 4 : 0;
    CHECK(backward.workspace <= reckoned + more + small);
  }
}

TEST_CASE("what cuDNN cannot do it refuses in words") {
  if (!has_cudnn()) return;
  const AttentionShape odd{1, 64, 2, 1, 12};  // heads whose rows are no whole pieces of 16 bytes
  CHECK_THROWS_AS(cudnn::plan_for(described(h100), odd, false), Error);
  CHECK_THROWS_AS(cudnn::plan_for("{}", {1, 64, 2, 1, 64}, false), Error);
}

TEST_CASE("results are compared block by block") {
  const std::vector<float> wanted = {100, 100, 1, 1, 0, 0, 1};
  std::vector<float> got = wanted;
  CHECK(cudnn::largest_difference(got, wanted, 2) == 0);
  got[3] = 1.1F;  // a thousandth of the whole, a fourteenth of its block
  CHECK(cudnn::largest_difference(got, wanted, 2) == Approx(0.1 / std::sqrt(2.0)).epsilon(1e-4));
  got[4] = 1e-30F;  // beside zeros
  CHECK(std::isinf(cudnn::largest_difference(got, wanted, 2)));
  got = wanted;
  got[6] = std::nanf("");
  CHECK(std::isinf(cudnn::largest_difference(got, wanted, 2)));
}

TEST_CASE("the shape that is compared is as long and as wide as the one it stands for") {
  CHECK(cudnn::checked_shape({8, 512, 32, 8, 128}) == AttentionShape{2, 512, 8, 2, 128});
  CHECK(cudnn::checked_shape({8, 4096, 6, 1, 64}) == AttentionShape{1, 4096, 6, 1, 64});
}
