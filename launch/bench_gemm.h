// switchyard bench gemm: the grouped products of an expert layer beside OpenBLAS and the core's own limit.
#pragma once

#include <cstdint>

namespace switchyard {

struct BenchGemmOptions {
  int threads = 0;       // 0: as many as OpenMP has
  double seconds = 0.1;  // for each row count and product, both libraries together
  std::int64_t d_model = 512;
  std::int64_t d_ff = 1408;
  int experts = 8;
  bool all_rows = false;  // each row count from 1 to 2048 instead of a choice of 22
  bool json = false;      // ends with one line that holds one JSON object
};

// Prints the tables to stdout; under a launcher rank 0 alone does. Exit code.
int bench_gemm(const BenchGemmOptions& options);

}  // namespace switchyard
