// OpenBLAS, where the machine has it: what the benchmarks compare with. The program itself never needs it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace switchyard {

class OpenBlas {
 public:
  static std::unique_ptr<OpenBlas> load();  // null where the library is not there
  OpenBlas(const OpenBlas&) = delete;
  OpenBlas& operator=(const OpenBlas&) = delete;
  ~OpenBlas();

  void set_threads(int threads) const { set_threads_(threads); }
  std::string description() const;  // version, threading, the kernels it chose

  enum class Op : int { None = 111, Transposed = 112 };  // CBLAS_TRANSPOSE
  // Row-major C[m, n] = op(A) op(B) + beta C, op(A): [m, k], op(B): [k, n].
  void sgemm(Op op_a, Op op_b, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, std::int64_t a_stride,
             const float* b, std::int64_t b_stride, float beta, float* c, std::int64_t c_stride) const;

 private:
  explicit OpenBlas(void* library);
  void* library_;
  void (*set_threads_)(int) = nullptr;
  char* (*config_)() = nullptr;
  char* (*core_)() = nullptr;
  void (*sgemm_)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*,
                 int) = nullptr;
};

}  // namespace switchyard
