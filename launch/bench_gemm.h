// switchyard bench gemm: the grouped products of an expert layer beside OpenBLAS and the core's own limit, or, on a
// GPU, beside cuBLAS.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard {

struct BenchGemmOptions {
  int threads = 0;       // 0: as many as OpenMP has
  double seconds = 0.1;  // for each row count and product, both libraries together
  std::int64_t d_model = 512;
  std::int64_t d_ff = 1408;
  int experts = 8;
  bool all_rows = false;  // each row count from 1 to 2048 instead of a choice of 22
  std::string device = "cpu";
  std::string dtype = "bf16";      // on a GPU: bf16 or fp32
  std::vector<std::int64_t> rows;  // an expert, on the average; empty: a choice of them
  bool json = false;               // ends with one line that holds one JSON object
};

// Prints the tables to stdout; under a launcher rank 0 alone does. Exit code.
int bench_gemm(const BenchGemmOptions& options);
int bench_gemm_on_device(const BenchGemmOptions& options);  // bench_gemm() where the device is a GPU

}  // namespace switchyard
