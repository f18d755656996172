// The grouped products of an expert layer on a GPU, in several ways, with the same numbers and in turn: all groups in
// one launch of ours (by mma.sync, too, where it is by wgmma), one call of cuBLAS for each group, and, for the rate
// that all would like to have, one product of cuBLAS over all rows with one weight. Times are the device's own, from
// the first kernel to the end of the last.
#include "comm/device/work.h"
#include "launch/bench_gemm.h"
#include "launch/table.h"
#include "layers/ops/convert.h"
#include "layers/ops/gemm_matmul.h"
#include "layers/ops/tensor_cores_cuda.h"
#include "layers/tensor/random.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

using Bounds = std::vector<std::int64_t>;

// [rows, cols] of random numbers; what is larger than a block repeats it.
Tensor random_matrix(std::int64_t rows, std::int64_t cols, DType dtype, std::uint64_t seed, Arena& arena) {
  const Tensor whole = allocate(arena, {rows, cols}, dtype);
  const std::int64_t block = std::min<std::int64_t>(rows, std::max<std::int64_t>(1, (1 << 22) / cols));
  std::vector<float> values(usize(block * cols));
  fill_normal(Random(seed, "bench gemm"), 0, isize(values.size()), 0.05, values.data());
  const Tensor made = converted(upload(arena, std::span<const float>(values)).reshaped({block, cols}), dtype, arena);
  for (std::int64_t begin = 0; begin < rows; begin += block) {
    const Tensor part = whole.slice(begin, std::min(block, rows - begin));
    arena.device().copy(part.raw(), made.raw(), Bytes(part.size() * size_of(dtype)), arena.device().stream());
  }
  return whole;
}

// Where the experts' rows begin. uneven: expert e has a share of 1 / (e + 1).
Bounds bounds_of(std::int64_t experts, std::int64_t rows, bool uneven) {
  std::vector<double> upto(1, 0);
  for (std::int64_t e = 0; e < experts; ++e)
    upto.push_back(upto.back() + (uneven ? 1 / static_cast<double>(e + 1) : 1));
  Bounds begin;
  for (const double share : upto)
    begin.push_back(static_cast<std::int64_t>(share / upto.back() * static_cast<double>(rows)));
  begin.back() = rows;
  return begin;
}

// One layer's rows and weights.
struct Layer {
  Arena arena;
  std::int64_t experts, rows;
  Tensor narrow, wide;  // [rows, d_model], [rows, d_ff]
  std::vector<PackedMatrix> up, down;
  Buffer plain_memory, exact_memory, flag;
  std::vector<GradientSum> plain, exact;

  Layer(Device& device, const BenchGemmOptions& options, std::int64_t rows_)
      : arena(device, Bytes(64 << 20)), experts(options.experts), rows(rows_) {
    const DType dtype = options.dtype == "bf16" ? DType::BF16 : DType::F32;
    narrow = random_matrix(rows, options.d_model, dtype, 1, arena);
    wide = random_matrix(rows, options.d_ff, dtype, 2, arena);
    const std::int64_t size = options.d_model * options.d_ff;
    const Tensor weights = random_matrix(experts * options.d_ff, options.d_model, dtype, 3, arena);
    plain_memory = Buffer(device, Bytes(experts * size * size_of(DType::F32)));
    exact_memory = Buffer(device, Bytes(experts * size * size_of(DType::I64)));
    flag = Buffer(device, Bytes(sizeof(std::uint32_t)));
    for (Buffer* buffer : {&plain_memory, &exact_memory, &flag}) buffer->zero();
    up.resize(usize(experts));
    down.resize(usize(experts));
    for (std::int64_t e = 0; e < experts; ++e) {
      up[usize(e)].pack_transposed(weights.slice(e * options.d_ff, options.d_ff), dtype);
      down[usize(e)].refer_transposed(up[usize(e)]);
      GradientSum sum;
      sum.size = size;
      sum.device = &device;
      sum.plain = static_cast<float*>(plain_memory.data()) + e * size;
      plain.push_back(sum);
      sum.plain = nullptr;
      sum.exact = static_cast<std::int64_t*>(exact_memory.data()) + e * size;
      sum.limit = 8192.0F;
      sum.device_non_finite = static_cast<std::uint32_t*>(flag.data());
      exact.push_back(sum);
    }
  }
};

// One kind of product, over groups with these bounds.
struct Product {
  const char* name;
  std::function<void(const Bounds&, ProductsBy)> run;
};

template <class T>
std::vector<const T*> first_of(const std::vector<T>& all, std::size_t count) {
  std::vector<const T*> pointers;
  for (std::size_t i = 0; i < count; ++i) pointers.push_back(&all[i]);
  return pointers;
}

std::vector<Product> products(Layer& layer) {
  const auto gemm = [&layer](const std::vector<PackedMatrix>& weights, bool from_narrow) {
    return [&layer, &weights, from_narrow](const Bounds& begin, ProductsBy by) {
      grouped_matmul(from_narrow ? layer.narrow : layer.wide, begin, first_of(weights, begin.size() - 1),
                     from_narrow ? layer.wide : layer.narrow, false, by);
    };
  };
  const auto gradient = [&layer](const std::vector<GradientSum>& sums) {
    return [&layer, &sums](const Bounds& begin, ProductsBy by) {
      std::vector<RowRange> ranges;
      Bounds each = {0};
      for (std::size_t g = 0; g + 1 < begin.size(); ++g) {
        ranges.push_back({begin[g], begin[g + 1]});
        each.push_back(isize(g) + 1);
      }
      grouped_weight_matmul(layer.wide, layer.narrow, ranges, each, each, first_of(sums, begin.size() - 1), by);
    };
  };
  return {{"forward", gemm(layer.up, true)},
          {"data_gradient", gemm(layer.down, false)},
          {"weight_gradient", gradient(layer.plain)},
          {"weight_gradient_exact", gradient(layer.exact)}};
}

struct Way {
  const char* name;
  const char* share;  // of the dense rate
  bool dense;
  ProductsBy by;
};
// Ours first, dense last.
std::vector<Way> ways_on(Device& device, const std::string& dtype) {
  std::vector<Way> ways = {{"ours", "of_dense", false, ProductsBy::Ours},
                           {"cublas_loop", "loop_of_dense", false, ProductsBy::Cublas},
                           {"dense", "", true, ProductsBy::Cublas}};
  if (dtype == "bf16" && cuda::uses_wgmma(device)) {
    ways.insert(ways.begin() + 1, {"ours_by_mma", "by_mma_of_dense", false, ProductsBy::OursByMma});
  }
  return ways;
}

// Medians of each way's seconds; the ways take turns.
std::vector<double> measure(Device& device, const std::vector<Way>& ways, const Product& product, const Bounds& begin,
                            double seconds) {
  std::vector<std::vector<double>> samples(ways.size());
  const Bounds all = {begin.front(), begin.back()};
  double spent = 0;
  for (int round = 0; round < 4 || spent < seconds; ++round) {
    for (std::size_t w = 0; w < ways.size(); ++w) {
      {
        const DeviceWork work(device, ways[w].name, {});
        product.run(ways[w].dense ? all : begin, ways[w].by);
      }
      const double taken = device.record()->take().front().seconds;
      spent += taken;
      if (round > 0) samples[w].push_back(taken);  // the first one loads libraries and chooses algorithms
    }
  }
  std::vector<double> medians(ways.size());
  for (std::size_t w = 0; w < ways.size(); ++w) {
    std::nth_element(samples[w].begin(), samples[w].begin() + isize(samples[w].size() / 2), samples[w].end());
    medians[w] = samples[w][samples[w].size() / 2];
  }
  return medians;
}

}  // namespace

int bench_gemm_on_device(const BenchGemmOptions& options) {
  Device& device = open_device(options.device);
  device.keep_record(true);
  const std::vector<Way> ways = ways_on(device, options.dtype);
  const std::vector<std::int64_t> counts =
      options.rows.empty() ? std::vector<std::int64_t>{16, 64, 256, 1024, 4096} : options.rows;
  fmt::print(
      "Products of {} experts on {} ({}), d_model {}, d_ff {}, {}; rows are an expert's on the average, uneven ones go "
      "as 1, 1/2, 1/3 and so on.\nours: one launch for all experts{}; cublas_loop: a call of cuBLAS for each; dense: "
      "one "
      "product of cuBLAS over all rows.\n\n",
      options.experts, device.model(), device.name(), options.d_model, options.d_ff, options.dtype,
      ways.size() > 3 ? " (by wgmma, and by mma.sync)" : "");
  std::vector<std::string> head = {"product", "rows", "TFLOP/s:"};
  for (const Way& way : ways) head.emplace_back(way.name);
  for (std::size_t w = 0; w + 1 < ways.size(); ++w) head.push_back(fmt::format("{} of dense", ways[w].name));
  Table table(head);
  nlohmann::json results = nlohmann::json::array();
  for (const std::int64_t count : counts) {
    Layer layer(device, options, count * options.experts);
    const double flops =
        2 * static_cast<double>(layer.rows) * static_cast<double>(options.d_model) * static_cast<double>(options.d_ff);
    for (const Product& product : products(layer)) {
      for (const bool uneven : {false, true}) {
        const Bounds begin = bounds_of(options.experts, layer.rows, uneven);
        const auto seconds = measure(device, ways, product, begin, options.seconds);
        nlohmann::json line = {{"product", product.name}, {"rows", count}, {"uneven", uneven}};
        std::vector<double> rates(ways.size());
        for (std::size_t w = 0; w < ways.size(); ++w) {
          rates[w] = flops / std::max(seconds[w], 1e-12) * 1e-12;
          line[fmt::format("{}_tflops", ways[w].name)] = rates[w];
        }
        std::vector<std::string> cells = {product.name, std::to_string(count), uneven ? "uneven" : "even"};
        for (const double rate : rates) cells.push_back(fmt::format("{:.2f}", rate));
        for (std::size_t w = 0; w + 1 < ways.size(); ++w) {
          line[ways[w].share] = rates[w] / rates.back();
          cells.push_back(fmt::format("{:.0f} %", 100 * rates[w] / rates.back()));
        }
        results.push_back(std::move(line));
        table.add(cells);
      }
    }
  }
  device.keep_record(false);
  fmt::print("{}", table.text());
  if (options.json) {
    const nlohmann::json object = {{"bench", "gemm"},
                                   {"device", device.model()},
                                   {"dtype", options.dtype},
                                   {"experts", options.experts},
                                   {"d_model", options.d_model},
                                   {"d_ff", options.d_ff},
                                   {"results", std::move(results)}};
    fmt::print("{}\n", object.dump());
  }
  return 0;
}

}  // namespace switchyard
