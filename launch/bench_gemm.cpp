// What is compared, so that nobody is deceived: both libraries get one product an expert, the same inputs, the same
// threads, in turn. OpenBLAS gets what a caller would write on weights as they are stored: it packs them within each
// call. Ours are packed once a step beforehand; that cost is printed by itself. The weight gradient of ours ends in
// exact 64-bit sums, that of OpenBLAS in fp32 ones.
#include "launch/bench_gemm.h"

#include "comm/group/environment.h"
#include "launch/openblas.h"
#include "layers/ops/gemm.h"
#include "layers/tensor/random.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <hwy/highway.h>
#include <nlohmann/json.hpp>
#include <omp.h>
#include <time.h>

namespace switchyard {
namespace {

// With one thread, its own processor time, which other programs on the machine disturb less than the time of day.
class Stopwatch {
 public:
  explicit Stopwatch(int threads) : clock_(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC), begin_(now()) {}
  double seconds() const { return now() - begin_; }

 private:
  double now() const {
    timespec time{};
    clock_gettime(clock_, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  clockid_t clock_;
  double begin_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

std::vector<std::int64_t> row_counts(bool all) {
  if (!all) return {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048};
  std::vector<std::int64_t> rows;
  for (std::int64_t m = 1; m <= 2048; ++m) rows.push_back(m);
  return rows;
}

// One expert layer's weights and the activations of up to `most` rows an expert.
struct Layer {
  std::int64_t experts, d_model, d_ff;
  Buffer narrow_memory, wide_memory, weight_memory, gradient_memory, plain_gradient_memory;
  std::vector<PackedMatrix> up, down, up_backward;
  std::vector<GradientSum> gradients;
  std::atomic<bool> non_finite{false};

  Layer(const BenchGemmOptions& options, std::int64_t most)
      : experts(options.experts),
        d_model(options.d_model),
        d_ff(options.d_ff),
        narrow_memory(random_floats(most * experts * d_model)),
        wide_memory(random_floats(most * experts * d_ff)),
        weight_memory(random_floats(experts * d_model * d_ff)),
        gradient_memory(cpu_device(), Bytes(experts * d_model * d_ff * size_of(DType::I64))),
        plain_gradient_memory(cpu_device(), Bytes(experts * d_model * d_ff * size_of(DType::F32))),
        up(usize(experts)),
        down(usize(experts)),
        up_backward(usize(experts)),
        gradients(usize(experts)) {
    gradient_memory.zero();
    plain_gradient_memory.zero();
    for (std::int64_t e = 0; e < experts; ++e) {
      up[usize(e)].pack_transposed(weight(e, d_ff, d_model));
      down[usize(e)].pack_transposed(weight(e, d_model, d_ff));
      up_backward[usize(e)].pack(weight(e, d_ff, d_model));
      gradients[usize(e)] = {.exact = static_cast<std::int64_t*>(gradient_memory.data()) + e * d_model * d_ff,
                             .plain = nullptr,
                             .limit = 8192.0f,
                             .non_finite = &non_finite,
                             .size = d_model * d_ff};
    }
  }

  static Buffer random_floats(std::int64_t n) {
    Buffer memory(cpu_device(), Bytes(n * size_of(DType::F32)));
    fill_normal(Random(1, "bench gemm"), 0, n, 0.05, static_cast<float*>(memory.data()));
    return memory;
  }
  static Tensor view(const Buffer& memory, std::int64_t rows, std::int64_t cols) {
    return Tensor(memory.data(), DType::F32, {rows, cols}, cpu_device());
  }
  Tensor weight(std::int64_t expert, std::int64_t out, std::int64_t in) const {
    return Tensor(static_cast<float*>(weight_memory.data()) + expert * d_model * d_ff, DType::F32, {out, in},
                  cpu_device());
  }
  float* plain_gradient(std::int64_t expert) const {
    return static_cast<float*>(plain_gradient_memory.data()) + expert * d_model * d_ff;
  }
};

// One of the layer's products with `rows` rows an expert, once.
struct Product {
  std::string name, title;
  std::function<void(std::int64_t rows)> ours;
  std::function<void(std::int64_t rows, std::int64_t expert)> theirs;
};

std::vector<const PackedMatrix*> pointers(const std::vector<PackedMatrix>& packed) {
  std::vector<const PackedMatrix*> result;
  for (const PackedMatrix& one : packed) result.push_back(&one);
  return result;
}

std::vector<std::int64_t> steps(std::int64_t parts, std::int64_t step) {
  std::vector<std::int64_t> result;
  for (std::int64_t i = 0; i <= parts; ++i) result.push_back(i * step);
  return result;
}

std::vector<Product> products(Layer& layer, const OpenBlas* blas) {
  using Op = OpenBlas::Op;
  const std::int64_t e = layer.experts, narrow = layer.d_model, wide = layer.d_ff;
  const auto forward = [&layer, e](const std::vector<PackedMatrix>& packed, bool from_narrow) {
    return [&layer, &packed, e, from_narrow](std::int64_t rows) {
      const Tensor a = Layer::view(layer.narrow_memory, rows * e, layer.d_model);
      const Tensor b = Layer::view(layer.wide_memory, rows * e, layer.d_ff);
      grouped_gemm(from_narrow ? a : b, steps(e, rows), pointers(packed), from_narrow ? b : a);
    };
  };
  const auto at = [](const Buffer& memory, std::int64_t offset) { return static_cast<float*>(memory.data()) + offset; };
  std::vector<Product> result;
  result.push_back({"up", fmt::format("forward, K = {}, N = {}", narrow, wide), forward(layer.up, true),
                    [=, &layer](std::int64_t m, std::int64_t g) {
                      blas->sgemm(Op::None, Op::Transposed, m, wide, narrow, at(layer.narrow_memory, g * m * narrow),
                                  narrow, at(layer.weight_memory, g * narrow * wide), narrow, 0,
                                  at(layer.wide_memory, g * m * wide), wide);
                    }});
  result.push_back({"down", fmt::format("forward, K = {}, N = {}", wide, narrow), forward(layer.down, false),
                    [=, &layer](std::int64_t m, std::int64_t g) {
                      blas->sgemm(Op::None, Op::Transposed, m, narrow, wide, at(layer.wide_memory, g * m * wide), wide,
                                  at(layer.weight_memory, g * narrow * wide), wide, 0,
                                  at(layer.narrow_memory, g * m * narrow), narrow);
                    }});
  result.push_back({"data_gradient", fmt::format("data gradient dx = dy W, K = {}, N = {}", wide, narrow),
                    forward(layer.up_backward, false), [=, &layer](std::int64_t m, std::int64_t g) {
                      blas->sgemm(Op::None, Op::None, m, narrow, wide, at(layer.wide_memory, g * m * wide), wide,
                                  at(layer.weight_memory, g * narrow * wide), narrow, 0,
                                  at(layer.narrow_memory, g * m * narrow), narrow);
                    }});
  result.push_back({"weight_gradient", fmt::format("weight gradient dW += dy^T x, {} x {}", wide, narrow),
                    [&layer, e](std::int64_t rows) {
                      std::vector<const GradientSum*> sums;
                      for (const GradientSum& sum : layer.gradients) sums.push_back(&sum);
                      grouped_weight_gradient(Layer::view(layer.wide_memory, rows * e, layer.d_ff),
                                              Layer::view(layer.narrow_memory, rows * e, layer.d_model), steps(e, rows),
                                              steps(e, 1), sums);
                    },
                    [=, &layer](std::int64_t m, std::int64_t g) {
                      blas->sgemm(Op::Transposed, Op::None, wide, narrow, m, at(layer.wide_memory, g * m * wide), wide,
                                  at(layer.narrow_memory, g * m * narrow), narrow, 1, layer.plain_gradient(g), narrow);
                    }});
  return result;
}

struct Rates {
  double ours = 0;
  double theirs = 0;
};

// How many row counts ours is at least as fast at: a rate within `noise` of the other is a tie, told by itself.
constexpr double noise = 0.02;
struct Tally {
  std::string product;
  std::int64_t faster = 0, ties = 0, slower = 0;
  double least_ratio = 0;

  void add(double ratio) {
    least_ratio = total() == 0 ? ratio : std::min(least_ratio, ratio);
    ++(ratio >= 1 ? faster : ratio >= 1 - noise ? ties : slower);
  }
  std::int64_t total() const { return faster + ties + slower; }
  std::string to_string() const {
    const std::string within = ties == 0 ? "" : fmt::format(" and within {:.0f} % at {} more", 100 * noise, ties);
    return fmt::format("{} of {} row counts{} ({}, least ratio {:.2f})", faster, total(), within, product, least_ratio);
  }
};

// Medians of samples taken in turn; a sample is a millisecond or more.
Rates measure(const Product& product, const Layer& layer, std::int64_t rows, int threads, bool compare,
              double seconds) {
  const double work = 2e-9 * static_cast<double>(rows * layer.experts * layer.d_model * layer.d_ff);
  const auto ours = [&] { product.ours(rows); };
  const auto theirs = [&] {
    for (std::int64_t g = 0; g < layer.experts; ++g) product.theirs(rows, g);
  };
  const auto rate = [&](const auto& run) {
    const Stopwatch watch(threads);
    int calls = 0;
    do {
      run();
      ++calls;
    } while (watch.seconds() < 1e-3);
    return work * calls / watch.seconds();
  };
  std::vector<double> ours_rates, their_rates;
  ours();
  if (compare) theirs();
  const Stopwatch watch(threads);
  do {
    ours_rates.push_back(rate(ours));
    if (compare) their_rates.push_back(rate(theirs));
  } while (watch.seconds() < seconds || ours_rates.size() < 3);
  return {median(ours_rates), median(their_rates)};
}

// Of the targets that the kernels are built for, the one that this machine runs; the lower the bit, the better.
std::int64_t best_target() {
  const std::int64_t targets = hwy::SupportedTargets() & static_cast<std::int64_t>(HWY_TARGETS);
  return targets & -targets;
}

double pack_seconds(const std::function<void()>& pack, int threads) {
  std::vector<double> samples;
  for (int i = 0; i < 9; ++i) {
    const Stopwatch watch(threads);
    pack();
    samples.push_back(watch.seconds());
  }
  return median(samples);
}

}  // namespace

int bench_gemm(const BenchGemmOptions& options) {
  if (launched_as().rank != 0) return 0;  // ranks beside it would only disturb what is measured
  require(options.threads >= 0 && options.experts > 0 && options.d_model > 0 && options.d_ff > 0,
          "bench gemm: threads {}, experts {}, d_model {}, d_ff {}: sizes must be positive", options.threads,
          options.experts, options.d_model, options.d_ff);
  if (options.device != "cpu") return bench_gemm_on_device(options);
  const int threads_before = omp_get_max_threads();
  const int threads = options.threads > 0 ? options.threads : threads_before;
  omp_set_num_threads(threads);
  const std::unique_ptr<OpenBlas> blas = OpenBlas::load();
  if (blas != nullptr) blas->set_threads(threads);

  const std::vector<std::int64_t> counts = options.rows.empty() ? row_counts(options.all_rows) : options.rows;
  Layer layer(options, *std::max_element(counts.begin(), counts.end()));
  double peak = measure_peak_gflops(threads, 0.2);
  const std::string target = hwy::TargetName(best_target());
  fmt::print(
      "Grouped products of {} experts, d_model {}, d_ff {}, {} thread{}, {} vectors; rows are rows an expert.\n"
      "The {} can do {:.1f} GFLOP/s of fused multiply-adds. Compared with: {}\n",
      options.experts, options.d_model, options.d_ff, threads, threads == 1 ? "" : "s", target,
      threads == 1 ? "core" : "cores", peak,
      blas != nullptr ? blas->description() : "nothing, there is no libopenblas.so.0 on this machine");

  nlohmann::json results = nlohmann::json::array();
  std::vector<Tally> tallies;
  for (const Product& product : products(layer, blas.get())) {
    fmt::print("\n{}\n{:>6} {:>10} {:>10} {:>7} {:>9}\n", product.title, "rows", "GFLOP/s", "OpenBLAS", "ratio",
               "of peak");
    Tally& tally = tallies.emplace_back(Tally{.product = product.name});
    for (const std::int64_t rows : counts) {
      const Rates rates = measure(product, layer, rows, threads, blas != nullptr, options.seconds);
      // The clock of a core may rise while we measure; a share is never of a limit that the core has just passed.
      peak = std::max(peak, measure_peak_gflops(threads, 0.002));
      nlohmann::json line = {
          {"product", product.name}, {"rows", rows}, {"gflops", rates.ours}, {"of_peak", rates.ours / peak}};
      if (blas != nullptr) {
        const double ratio = rates.ours / rates.theirs;
        tally.add(ratio);
        line["openblas_gflops"] = rates.theirs;
        line["ratio"] = ratio;
        fmt::print("{:>6} {:>10.1f} {:>10.1f} {:>7.2f} {:>8.1f}%\n", rows, rates.ours, rates.theirs, ratio,
                   100 * rates.ours / peak);
      } else {
        fmt::print("{:>6} {:>10.1f} {:>10} {:>7} {:>8.1f}%\n", rows, rates.ours, "-", "-", 100 * rates.ours / peak);
      }
      results.push_back(std::move(line));
    }
  }

  PackedMatrix& packed = layer.up.front();
  const Tensor weight = layer.weight(0, layer.d_ff, layer.d_model);
  const double forward = pack_seconds([&] { packed.pack_transposed(weight); }, threads);
  const double backward = pack_seconds([&] { layer.up_backward.front().pack(weight); }, threads);
  const double rows_of_work = forward * peak * 1e9 / (2.0 * static_cast<double>(layer.d_model * layer.d_ff));
  fmt::print(
      "\nPacking one weight, once a step: {:.2f} ms for the forward product, {:.2f} ms for the data gradient;\n"
      "the first is the time of {:.0f} rows at the cores' limit.\n",
      forward * 1e3, backward * 1e3, rows_of_work);
  if (blas != nullptr) {
    std::string line;
    for (const Tally& tally : tallies) line += (line.empty() ? "" : ", ") + tally.to_string();
    fmt::print("At least as fast as OpenBLAS at {}.\n", line);
  }
  if (options.json) {
    nlohmann::json object = {{"bench", "gemm"},
                             {"threads", threads},
                             {"target", target},
                             {"experts", options.experts},
                             {"d_model", options.d_model},
                             {"d_ff", options.d_ff},
                             {"peak_gflops", peak},
                             {"pack_ms", {{"forward", forward * 1e3}, {"data_gradient", backward * 1e3}}},
                             {"openblas", blas != nullptr ? nlohmann::json(blas->description()) : nlohmann::json()},
                             {"results", std::move(results)}};
    if (blas != nullptr) {
      nlohmann::json verdict = nlohmann::json::array();
      double least_ratio = tallies.front().least_ratio;
      std::int64_t slower = 0;
      for (const Tally& tally : tallies) {
        least_ratio = std::min(least_ratio, tally.least_ratio);
        slower += tally.slower;
        verdict.push_back({{"product", tally.product},
                           {"row_counts", tally.total()},
                           {"at_least_as_fast", tally.faster},
                           {"within_noise", tally.ties},
                           {"slower", tally.slower},
                           {"least_ratio", tally.least_ratio}});
      }
      object["noise"] = noise;
      object["against_openblas"] = std::move(verdict);
      object["least_ratio"] = least_ratio;
      object["slower"] = slower;
    }
    fmt::print("{}\n", object.dump());
  }
  omp_set_num_threads(threads_before);
  return 0;
}

}  // namespace switchyard
