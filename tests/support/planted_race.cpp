// planted_race KIND: a kernel whose threads race, for ThreadSanitizer to find, or with "none" one whose do not.
#include <functional>
#include <string_view>

#include <cuda_runtime.h>

namespace {

constexpr unsigned threads = 64;

// Each thread reads what its neighbour has written: of another warp, for some, unless `across` is less than a warp.
void pass_on(int* memory, bool all_wait, unsigned across) {
  const unsigned i = threadIdx.x;
  memory[i] = static_cast<int>(i);
  all_wait ? __syncthreads() : void();
  const int other = memory[i ^ across];
  all_wait ? __syncthreads() : void();
  memory[i] = other;
}
void within_warp(int* memory, bool warp_waits) {
  const unsigned i = threadIdx.x;
  memory[i] = static_cast<int>(i);
  warp_waits ? __syncwarp() : void(__shfl_xor_sync(0xffffffffu, 1, 1));  // a shuffle orders nothing
  const int other = memory[i ^ 1];
  __syncwarp();
  memory[i] = other;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view kind = argc > 1 ? argv[1] : "none";
  int* memory = nullptr;
  if (cudaMalloc(&memory, threads * sizeof(int)) != cudaSuccess) return 1;
  const auto run = [](const std::function<void()>& body) {
    cuda_emulation::run("planted", dim3(3), dim3(threads), threads * sizeof(int), body);
  };
  const auto shared = [] { return static_cast<int*>(cuda_emulation::dynamic_shared()); };
  run([&] { pass_on(shared(), kind != "shared", threads / 2); });
  run([&] { pass_on(memory, kind != "global", threads / 2); });
  run([&] { within_warp(memory, kind != "warp"); });
  run([&] { atomicAdd(memory, 1); });
  return cudaDeviceSynchronize() == cudaSuccess ? 0 : 1;
}
