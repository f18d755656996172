// Stands in for the CUDA code of gradient sums in a program without it. Nothing comes here: no array lies on a GPU.
#include "comm/base/error.h"
#include "comm/reduce/pieces_cuda.h"

namespace switchyard::cuda {
namespace {

[[noreturn]] void absent() {
  fail(ErrorKind::Runtime, "gradient sums have no code for CUDA in this build");
}

}  // namespace

void copy_pieces(Device&, std::span<const CopiedPiece>) {
  absent();
}
void sum_pieces(Device&, std::span<const SummedPiece<float>>) {
  absent();
}
void sum_pieces(Device&, std::span<const SummedPiece<std::int64_t>>) {
  absent();
}

}  // namespace switchyard::cuda
