// The emulation of CUDA on the CPU, which the tests of kernels stand on: what it computes, and what it must catch.
#include "tests/support/catch.h"

#include <csignal>
#include <numeric>
#include <string>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using cuda_emulation::run;

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t n) : n_(n) { REQUIRE(cudaMalloc(&data_, n * sizeof(T)) == cudaSuccess); }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    REQUIRE(cudaMemcpy(data_, values.data(), n_ * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* get() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> out(n_);
    REQUIRE(cudaMemcpy(out.data(), data_, n_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return out;
  }

 private:
  T* data_ = nullptr;
  std::size_t n_;
};

std::string message_of(const std::function<void()>& work) {
  try {
    work();
    cudaDeviceSynchronize();
  } catch (const std::logic_error& error) {
    return error.what();
  }
  return "nothing";
}

// The signal that ends a child which does this; 0 where it ends by itself.
int signal_of(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    ::close(STDERR_FILENO);
    work();
    cudaDeviceSynchronize();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

__global__ void sum_block(const int* x, int n, int* sums, bool forget_barrier) {
  __shared__ int part[1024];
  part[threadIdx.x] = 0;
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) {
    part[threadIdx.x] += x[i];
  }
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
    if (!forget_barrier) __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = part[0];
}

}  // namespace

TEST_CASE("a reduction in shared memory; one that forgets its barriers shows") {
  std::vector<int> x(10007);
  std::iota(x.begin(), x.end(), -3000);
  const int wanted = std::accumulate(x.begin(), x.end(), 0);
  const DeviceArray<int> from(x), sums(3);
  const auto total = [&](bool forget_barrier) {
    run("sum_block", 3, 256, 0, [&] { sum_block(from.get(), int(x.size()), sums.get(), forget_barrier); });
    const std::vector<int> s = sums.values();
    return s[0] + s[1] + s[2];
  };
  for (int time = 0; time < 4; ++time) CHECK(total(false) == wanted);
  int wrong = 0;
  for (int time = 0; time < 3; ++time) wrong += total(true) != wanted ? 1 : 0;  // never three times in the same order
  CHECK(wrong > 0);
}

TEST_CASE("indices of blocks and threads in three dimensions") {
  const dim3 grid(3, 2, 2), block(5, 4, 3);
  const std::size_t n = 12 * 60;
  const DeviceArray<int> seen(std::vector<int>(n, 0));
  run("number", grid, block, 0, [&] {
    const unsigned b = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned t = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    seen.get()[b * 60 + t] += int(b * 60 + t);
  });
  std::vector<int> wanted(n);
  std::iota(wanted.begin(), wanted.end(), 0);
  CHECK(seen.values() == wanted);
}

TEST_CASE("shuffles and votes") {
  const DeviceArray<int> out(64 * 6);
  run("shuffle", 1, 64, 0, [&] {
    int* const mine = out.get() + threadIdx.x * 6;
    const int value = int(threadIdx.x);
    mine[0] = __shfl_sync(0xffffffffu, value, 5);
    mine[1] = __shfl_xor_sync(0xffffffffu, value, 3);
    mine[2] = __shfl_up_sync(0xffffffffu, value, 2);
    mine[3] = __shfl_down_sync(0xffffffffu, value, 2, 8);
    mine[4] = int(__ballot_sync(0xffffffffu, value % 3 == 0));
    int sum = value;
    for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bits);
    mine[5] = sum;
  });
  const std::vector<int> got = out.values();
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32, warp = t - lane;
    int vote = 0;
    for (int l = 0; l < 32; ++l) vote |= (warp + l) % 3 == 0 ? int(1u << l) : 0;
    const std::vector<int> wanted = {warp + 5, warp + (lane ^ 3),  lane < 2 ? t : t - 2, lane % 8 < 6 ? t + 2 : t,
                                     vote,     warp * 32 + 31 * 16};
    CHECK(std::vector<int>(got.begin() + t * 6, got.begin() + t * 6 + 6) == wanted);
  }
}

TEST_CASE("the last warp of a block may lack lanes, which give nothing") {
  const DeviceArray<unsigned> votes(37);
  run("vote", 1, 37, 0, [&] { votes.get()[threadIdx.x] = __ballot_sync(0xffffffffu, 1); });
  for (std::size_t t = 0; t < 37; ++t) CHECK(votes.values()[t] == (t < 32 ? 0xffffffffu : 0x1fu));
  CHECK(message_of([&] {
          run("beyond", 1, 37, 0, [&] { votes.get()[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1u, 16); });
        }).find("kernel beyond, block (0, 0, 0): thread (3") != std::string::npos);
}

TEST_CASE("a barrier that some threads miss is told with the kernel and the places") {
  const std::string returned = message_of([] {
    run("early", dim3(2), 64, 0, [] {
      if (threadIdx.x >= 32) return;
      __syncthreads();
    });
  });
  CHECK(returned.find("kernel early, block (") != std::string::npos);
  CHECK(returned.find("not all threads reach a barrier") != std::string::npos);
  CHECK(returned.find("has returned") != std::string::npos);
  CHECK(returned.find("waits for the block at") != std::string::npos);
  const std::string apart = message_of([] {
    run("apart", 1, 64, 0, [] {
      if (threadIdx.x < 32) {
        __syncthreads();
      } else {
        __syncthreads();
      }
    });
  });
  CHECK(apart.find("cuda_emulation.cpp:") != std::string::npos);
  const std::string within = message_of([] {
    run("within", 1, 32, 0, [] {
      if (threadIdx.x < 7) __syncwarp();
      __syncthreads();
    });
  });
  CHECK(within.find("waits for its warp at") != std::string::npos);
  // What failed leaves nothing behind.
  const DeviceArray<int> one(1);
  run("after", 1, 64, 0, [&] {
    __syncthreads();
    if (threadIdx.x == 0) one.get()[0] = 7;
  });
  CHECK(one.values()[0] == 7);
}

TEST_CASE("dynamic shared memory is poisoned, and its end is guarded") {
  const DeviceArray<int> out(64);
  const auto kernel = [&](unsigned beyond) {
    auto* const shared = static_cast<int*>(cuda_emulation::dynamic_shared());
    const int before = shared[threadIdx.x];
    __syncthreads();
    shared[threadIdx.x + beyond] = int(threadIdx.x);
    __syncthreads();
    out.get()[threadIdx.x] = before + shared[63 - threadIdx.x];
  };
  run("reverse", 2, 64, 64 * sizeof(int), [&] { kernel(0); });
  for (int t = 0; t < 64; ++t) CHECK(out.values()[std::size_t(t)] == -1 + 63 - t);
  CHECK(signal_of([&] { run("overrun", 1, 64, 64 * sizeof(int), [&] { kernel(1); }); }) == SIGSEGV);
}

TEST_CASE("device memory faults on the host, beyond its end, and after it was given back") {
  const DeviceArray<float> x(64), y(std::vector<float>(64, 1.0f));
  CHECK(std::isnan(x.values()[63]));  // poisoned
  CHECK(signal_of([&] { *static_cast<volatile float*>(y.get()) = 1; }) == SIGSEGV);
  CHECK(signal_of([&] { run("beyond", 1, 1, 0, [&] { y.get()[64] = 1; }); }) == SIGSEGV);
  CHECK(signal_of([&] {
          float* gone = nullptr;
          cudaMalloc(&gone, 4);
          cudaFree(gone);
          run("gone", 1, 1, 0, [gone] { *gone = 1; });
        }) == SIGSEGV);
  CHECK(signal_of([&] { run("within", 1, 1, 0, [&] { y.get()[63] = 1; }); }) == 0);
}

TEST_CASE("copies check their sides, launches their sizes") {
  const DeviceArray<int> x(8);
  std::vector<int> host(8);
  CHECK(cudaMemcpy(host.data(), x.get(), 33, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemcpy(x.get(), host.data(), 32, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaSuccess);
  run("large", 1, 1025, 0, [] {});
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  run("empty", 0, 32, 0, [] {});
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  run("much", 1, 32, 228 << 10, [] {});
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
}

TEST_CASE("streams keep their order, and events tie them together") {
  cudaStream_t first = nullptr, second = nullptr;
  cudaEvent_t event = nullptr;
  cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  const DeviceArray<int> x(std::vector<int>{1});
  run(first, "times", 1, 1, 0, [at = x.get()] { *at *= 10; });
  cudaEventRecord(event, first);
  cudaStreamWaitEvent(second, event);
  run(second, "plus", 1, 1, 0, [at = x.get()] { *at += 1; });
  int* pinned = nullptr;
  cudaMallocHost(&pinned, sizeof(int));
  cudaMemcpyAsync(pinned, x.get(), sizeof(int), cudaMemcpyDeviceToHost, second);
  cudaStreamSynchronize(second);
  CHECK(*pinned == 11);
  CHECK(cudaEventQuery(event) == cudaSuccess);
  cudaFreeHost(pinned);
  cudaEventDestroy(event);
  cudaStreamDestroy(first);
  cudaStreamDestroy(second);
}

TEST_CASE("bfloat16 rounds to nearest, ties to even") {
  const auto rounded = [](float x) { return __bfloat162float(__float2bfloat16_rn(x)); };
  CHECK(rounded(1.0f) == 1.0f);
  CHECK(rounded(1.00390625f) == 1.0f);       // halfway, down to even
  CHECK(rounded(1.01171875f) == 1.015625f);  // halfway, up to even
  CHECK(rounded(-1.00390637f) == -1.0078125f);
  CHECK(std::isinf(rounded(3.4e38f)));
  CHECK(std::isnan(rounded(std::nanf(""))));
}
