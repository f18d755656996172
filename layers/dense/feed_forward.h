// Feed-forward networks, several at once: rows are sorted by network, so that a dense layer is the case of one network
// and the experts of a rank are the case of many.
//   S rows, N networks, D model width, F inner width
//   SwiGLU: y = (silu(x Wg^T) * (x Wu^T)) Wd^T;   GELU, ReLU: y = f(x Wu^T) Wd^T
#pragma once

#include "layers/dense/packed_weight.h"
#include "layers/ops/activation.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

struct FeedForwardWeights {
  Parameter* gate = nullptr;  // [F, D]; SwiGLU only
  Parameter* up = nullptr;    // [F, D]
  Parameter* down = nullptr;  // [D, F]
};

// Which rows belong to which network, and to which micro-batch of it: one partial gradient for each.
struct RowSegments {
  std::vector<std::int64_t> row_begin;      // [networks + 1]
  std::vector<std::int64_t> segment_begin;  // [segments + 1], rows
  std::vector<std::int64_t> network_begin;  // [networks + 1], segments

  static RowSegments single(std::int64_t rows) { return {{0, rows}, {0, rows}, {0, 1}}; }
};

class FeedForward {
 public:
  struct Saved {
    Tensor gate, up, hidden;  // [S, F]; gate for SwiGLU only
  };
  FeedForward(std::span<const FeedForwardWeights> networks, Activation activation);

  std::int64_t networks() const { return static_cast<std::int64_t>(up_.size()); }

  // x, y: [S, D]
  void forward(const Tensor& x, const RowSegments& rows, Arena& arena, Saved& saved, Tensor y);
  // dx: [S, D] is assigned, or added to. What `saved` holds is used up.
  void backward(const Tensor& dy, const Tensor& x, const RowSegments& rows, Arena& scratch, Saved& saved, Tensor dx,
                bool add_to_dx);

 private:
  Activation activation_;
  std::int64_t inner_width_ = 0;
  std::vector<PackedWeight> gate_, up_, down_;
};

}  // namespace switchyard
