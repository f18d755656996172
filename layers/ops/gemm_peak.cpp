#include "layers/ops/gemm.h"

#include <algorithm>
#include <chrono>

// clang-format off
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/ops/gemm_peak.cpp"
#include <hwy/foreach_target.h>  // before whatever is compiled once a target
#include <hwy/highway.h>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace switchyard::HWY_NAMESPACE {

// Twelve chains hide the latency of two units; returns how many multiply-adds were done. `sink` keeps them alive.
double run_chains(std::int64_t rounds, float* sink) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<float> d;
  constexpr int chains = 12;
  hn::Vec<decltype(d)> acc[chains];
#pragma GCC unroll 16
  for (int i = 0; i < chains; ++i) acc[i] = hn::Set(d, sink[i]);
  const auto factor = hn::Set(d, 0.999f);
  const auto term = hn::Set(d, 0.001f);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < chains; ++i) acc[i] = hn::MulAdd(acc[i], factor, term);
  }
#pragma GCC unroll 16
  for (int i = 0; i < chains; ++i) sink[i] = hn::GetLane(acc[i]);
  return static_cast<double>(rounds) * chains * static_cast<double>(hn::Lanes(d));
}

}  // namespace switchyard::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {
namespace {
HWY_EXPORT(run_chains);
}

double measure_peak_gflops(int threads, double seconds) {
  require(threads > 0, "measure_peak_gflops: {} threads", threads);
  using Clock = std::chrono::steady_clock;
  double rate = 0;
#pragma omp parallel num_threads(threads) reduction(+ : rate)
  {
    float sink[16] = {};
    const auto begin = Clock::now();
    // The best of many short runs: what the core can do when nothing else has it.
    double best = 0;
    do {
      const auto start = Clock::now();
      const double done = HWY_DYNAMIC_DISPATCH(run_chains)(100000, sink);
      best = std::max(best, 2e-9 * done / std::chrono::duration<double>(Clock::now() - start).count());
    } while (std::chrono::duration<double>(Clock::now() - begin).count() < seconds);
    rate += best;
  }
  return rate;
}

}  // namespace switchyard
#endif
