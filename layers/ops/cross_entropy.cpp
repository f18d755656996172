#include "layers/ops/cross_entropy.h"

#include "layers/ops/cross_entropy_cpu.h"

#include <algorithm>

namespace switchyard {
namespace {

// Rows of logits that are made at a time: 32 MB of them at most for V up to 32,768, and enough rows that the products
// run at full speed. Part of the result (the gradient of the projection is summed chunk by chunk), so it may depend on
// nothing but V.
std::int64_t chunk_rows(std::int64_t vocabulary) {
  return std::clamp<std::int64_t>((std::int64_t{1} << 23) / std::max<std::int64_t>(vocabulary, 1), 256, 1024);
}

// An exact sum takes one partial a micro-batch: where there are several chunks they are added up first. A plain sum
// takes them as they come.
bool sums_chunks_first(std::int64_t tokens, std::int64_t vocabulary, bool exact) {
  return exact && tokens > chunk_rows(vocabulary);
}

void check_forward(const char* op, const Tensor& hidden, const PackedMatrix& projection, const Tensor& targets,
                   const Tensor& losses) {
  require(hidden.defined() && hidden.shape().rank() == 2, "{}: hidden is {}, wanted a matrix", op,
          hidden.shape().to_string());
  const Device& device = hidden.device();
  check_tensor(op, "hidden", hidden, hidden.shape(), device);
  check_tensor(op, "targets", targets, {hidden.dim(0)}, device, DType::I32);
  check_tensor(op, "losses", losses, {hidden.dim(0)}, device);
  require(projection.k() == hidden.dim(1), "{}: hidden is {} wide, the projection takes {}", op, hidden.dim(1),
          projection.k());
  if (!on_cpu(hidden)) fail_on_device(op, device);
}

// Calls f(begin, count, logits) for each chunk of rows.
template <class F>
void for_chunks(const Tensor& hidden, const PackedMatrix& projection, Arena& scratch, const F& f) {
  const std::int64_t tokens = hidden.dim(0), rows = std::min(chunk_rows(projection.n()), tokens);
  const ArenaScope scope(scratch);
  const Tensor room = allocate(scratch, {rows, projection.n()});
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
  cpu::check_targets(targets, projection.n());
  for_chunks(hidden, projection, scratch, [&](std::int64_t begin, std::int64_t count, const Tensor& logits) {
    cpu::cross_entropy_rows(logits, targets.slice(begin, count), losses.slice(begin, count));
  });
}

void cross_entropy_and_backward(const Tensor& hidden, const PackedMatrix& projection,
                                const PackedMatrix& backward_projection, const Tensor& targets, float scale,
                                Arena& scratch, Tensor losses, Tensor dhidden, const GradientSum& dprojection) {
  const char* op = "cross_entropy_and_backward";
  check_forward(op, hidden, projection, targets, losses);
  check_tensor(op, "dhidden", dhidden, hidden.shape(), hidden.device());
  const std::int64_t vocabulary = projection.n(), width = projection.k();
  require(backward_projection.k() == vocabulary && backward_projection.n() == width,
          "{}: the backward projection takes {} and gives {}, wanted {} and {}", op, backward_projection.k(),
          backward_projection.n(), vocabulary, width);
  require(dprojection.size == vocabulary * width, "{}: the projection's gradient has {} elements, wanted {}", op,
          dprojection.size, vocabulary * width);
  cpu::check_targets(targets, vocabulary);

  const ArenaScope scope(scratch);
  GradientSum chunk_sum = dprojection;
  const bool chunks_first = sums_chunks_first(hidden.dim(0), vocabulary, dprojection.exact != nullptr);
  if (chunks_first) {
    chunk_sum = GradientSum();
    chunk_sum.plain = allocate_zero(scratch, {vocabulary, width}).f32();
    chunk_sum.size = vocabulary * width;
  }
  for_chunks(hidden, projection, scratch, [&](std::int64_t begin, std::int64_t count, const Tensor& logits) {
    cpu::cross_entropy_rows_backward(logits, targets.slice(begin, count), scale, losses.slice(begin, count));
    gemm(logits, backward_projection, dhidden.slice(begin, count));
    weight_gradient(logits, hidden.slice(begin, count), chunk_sum);
  });
  if (chunks_first) add_partial(dprojection, chunk_sum.plain, dprojection.size);
}

Bytes cross_entropy_scratch(std::int64_t tokens, std::int64_t vocabulary, std::int64_t width, Numerics numerics) {
  std::int64_t floats = std::min(chunk_rows(vocabulary), tokens) * vocabulary;
  if (sums_chunks_first(tokens, vocabulary, numerics == Numerics::Reproducible)) floats += vocabulary * width;
  return Bytes(floats * size_of(DType::F32));
}

}  // namespace switchyard
