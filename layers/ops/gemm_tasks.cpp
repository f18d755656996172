#include "layers/ops/gemm_cpu.h"
#include "layers/ops/gemm_layout.h"

#include <algorithm>

#include <omp.h>

namespace switchyard {

GemmScratch::GemmScratch(int threads, std::int64_t floats) : begin_(nullptr), stride_((floats + 15) / 16 * 16) {
  static thread_local Buffer memory;
  const Bytes bytes(threads * stride_ * size_of(DType::F32));
  if (memory.size().value() < bytes.value()) {
    memory = Buffer();  // the old block goes before the new one comes
    memory = Buffer(cpu_device(), bytes);
  }
  begin_ = static_cast<float*>(memory.data());
}

std::int64_t pieces_of(std::int64_t work, std::int64_t total, int threads, std::int64_t most) {
  if (threads == 1) return 1;
  // Eight tasks a thread, taken as threads come free: the last ones to finish wait for an eighth of their work at most.
  const std::int64_t target = std::max<std::int64_t>(total / (8 * threads), 1 << 16);
  return std::clamp<std::int64_t>(gemm_layout::divide_up(work, target), 1, std::max<std::int64_t>(most, 1));
}

int threads_for(std::int64_t total) {
  if (omp_in_parallel() != 0) return 1;
  // A core does 2^16 multiply-adds in a microsecond or two: less is not worth the wait for another thread.
  return static_cast<int>(std::clamp<std::int64_t>(total >> 16, 1, omp_get_max_threads()));
}

}  // namespace switchyard
