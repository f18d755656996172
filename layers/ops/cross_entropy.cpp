#include "layers/ops/cross_entropy.h"

#include "comm/device/work.h"
#include "layers/ops/cross_entropy_cpu.h"
#include "layers/ops/cross_entropy_cuda.h"

#include <algorithm>

namespace switchyard {
namespace {

// Rows of logits that are made at a time: 32 MB of them at most for V up to 32,768, and enough rows that the products
// run at full speed; on a CUDA device, where each chunk's pass over the gradient of the projection weighs more, 16
// times as many logits. Part of the result (that gradient is summed chunk by chunk), so it may depend on nothing but V
// and the kind of device.
std::int64_t chunk_rows(std::int64_t vocabulary, DeviceKind kind) {
  const std::int64_t v = std::max<std::int64_t>(vocabulary, 1);
  if (kind == DeviceKind::Cuda) return std::clamp<std::int64_t>((std::int64_t{1} << 27) / v, 1024, 4096);
  return std::clamp<std::int64_t>((std::int64_t{1} << 23) / v, 256, 1024);
}

// An exact sum takes one partial a micro-batch: where there are several chunks they are added up first. A plain sum
// takes them as they come.
bool sums_chunks_first(std::int64_t tokens, std::int64_t vocabulary, bool exact, DeviceKind kind) {
  return exact && tokens > chunk_rows(vocabulary, kind);
}

void check_forward(const char* op, const Tensor& hidden, const PackedMatrix& projection, const Tensor& targets,
                   const Tensor& losses) {
  require(hidden.defined() && hidden.shape().rank() == 2, "{}: hidden is {}, wanted a matrix", op,
          hidden.shape().to_string());
  const Device& device = hidden.device();
  require(hidden.dtype() == DType::F32 || (hidden.dtype() == DType::BF16 && !on_cpu(hidden)), "{}: hidden is {} on {}",
          op, name_of(hidden.dtype()), device.name());
  check_tensor(op, "targets", targets, {hidden.dim(0)}, device, DType::I32);
  check_tensor(op, "losses", losses, {hidden.dim(0)}, device);
  require(projection.k() == hidden.dim(1), "{}: hidden is {} wide, the projection takes {}", op, hidden.dim(1),
          projection.k());
  if (on_cpu(hidden)) check_targets(std::span(targets.i32(), usize(targets.size())), projection.n());
}

// Calls f(begin, count, logits) for each chunk of rows.
template <class F>
void for_chunks(const Tensor& hidden, const PackedMatrix& projection, Arena& scratch, const F& f) {
  const std::int64_t tokens = hidden.dim(0),
                     rows = std::min(chunk_rows(projection.n(), hidden.device().kind()), tokens);
  const ArenaScope scope(scratch);
  const Tensor room = allocate(scratch, {rows, projection.n()}, hidden.dtype());
  for (std::int64_t begin = 0; begin < tokens; begin += rows) {
    const std::int64_t count = std::min(rows, tokens - begin);
    const Tensor logits = room.slice(0, count);
    gemm(hidden.slice(begin, count), projection, logits);
    f(begin, count, logits);
  }
}

}  // namespace

void cross_entropy(const Tensor& hidden, const PackedMatrix& projection, const Tensor& targets, Arena& scratch,
                   Tensor losses) {
  check_forward("cross_entropy", hidden, projection, targets, losses);
  for_chunks(hidden, projection, scratch, [&](std::int64_t begin, std::int64_t count, const Tensor& logits) {
    const Tensor chunk_targets = targets.slice(begin, count), chunk_losses = losses.slice(begin, count);
    if (on_cpu(hidden)) return cpu::cross_entropy_rows(logits, chunk_targets, chunk_losses);
    const DeviceWork work(logits.device(), "cross_entropy", {.bytes = bytes_of(logits, chunk_targets, chunk_losses)});
    cuda::cross_entropy_rows(logits, chunk_targets, chunk_losses);
  });
}

void cross_entropy_and_backward(const Tensor& hidden, const PackedMatrix& projection,
                                const PackedMatrix& backward_projection, const Tensor& targets, float scale,
                                Arena& scratch, Tensor losses, Tensor dhidden, const GradientSum& dprojection) {
  const char* op = "cross_entropy_and_backward";
  check_forward(op, hidden, projection, targets, losses);
  check_tensor(op, "dhidden", dhidden, hidden.shape(), hidden.device(), hidden.dtype());
  const std::int64_t vocabulary = projection.n(), width = projection.k();
  require(backward_projection.k() == vocabulary && backward_projection.n() == width,
          "{}: the backward projection takes {} and gives {}, wanted {} and {}", op, backward_projection.k(),
          backward_projection.n(), vocabulary, width);
  require(dprojection.size == vocabulary * width, "{}: the projection's gradient has {} elements, wanted {}", op,
          dprojection.size, vocabulary * width);

  const ArenaScope scope(scratch);
  GradientSum chunk_sum = dprojection;
  const bool chunks_first =
      sums_chunks_first(hidden.dim(0), vocabulary, dprojection.exact != nullptr, hidden.device().kind());
  if (chunks_first) {
    chunk_sum = GradientSum();
    chunk_sum.plain = allocate_zero(scratch, {vocabulary, width}).f32();
    chunk_sum.size = vocabulary * width;
    chunk_sum.device = &hidden.device();
    chunk_sum.numerics = dprojection.numerics;
  }
  for_chunks(hidden, projection, scratch, [&](std::int64_t begin, std::int64_t count, const Tensor& logits) {
    const Tensor chunk_targets = targets.slice(begin, count), chunk_losses = losses.slice(begin, count);
    if (on_cpu(hidden)) {
      cpu::cross_entropy_rows_backward(logits, chunk_targets, scale, chunk_losses);
    } else {
      const DeviceWork work(logits.device(), "cross_entropy_and_backward",
                            {.bytes = bytes_of(logits, chunk_targets, chunk_losses, logits)});
      cuda::cross_entropy_rows_backward(logits, chunk_targets, scale, chunk_losses);
    }
    gemm(logits, backward_projection, dhidden.slice(begin, count));
    weight_gradient(logits, hidden.slice(begin, count), chunk_sum);
  });
  if (chunks_first) add_partial(dprojection, chunk_sum.plain, dprojection.size);
}

Bytes cross_entropy_scratch(std::int64_t tokens, std::int64_t vocabulary, std::int64_t width, Numerics numerics,
                            DeviceKind kind, DType type) {
  std::int64_t bytes = std::min(chunk_rows(vocabulary, kind), tokens) * vocabulary * size_of(type);
  if (sums_chunks_first(tokens, vocabulary, numerics == Numerics::Reproducible, kind)) {
    bytes += vocabulary * width * size_of(DType::F32);
  }
  return Bytes(bytes);
}

void check_targets(std::span<const std::int32_t> targets, std::int64_t vocabulary) {
  for (std::size_t t = 0; t < targets.size(); ++t) {
    if (targets[t] >= vocabulary) [[unlikely]] {
      fail(ErrorKind::Data, "target {} at position {} is beyond the vocabulary of {}", targets[t], t, vocabulary);
    }
  }
}

}  // namespace switchyard
