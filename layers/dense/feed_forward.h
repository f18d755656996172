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

// Which rows belong to which network, and to which micro-batch of it: one partial gradient for each. The rows of a
// segment may lie in several ranges.
struct RowSegments {
  std::vector<RowRange> ranges;
  std::vector<std::int64_t> segment_begin;  // [segments + 1], ranges
  std::vector<std::int64_t> network_begin;  // [networks + 1], segments

  static RowSegments single(std::int64_t rows) { return {{{0, rows}}, {0, 1}, {0, 1}}; }
};

class FeedForward {
 public:
  struct Saved {
    Tensor gate, up, hidden;  // [S, F]; gate for SwiGLU only
    Saved slice(std::int64_t begin, std::int64_t count) const;
  };
  FeedForward(std::span<const FeedForwardWeights> networks, Activation activation);

  void pack();  // see PackedWeight
  std::int64_t networks() const { return static_cast<std::int64_t>(up_.size()); }
  Saved allocate_saved(std::int64_t rows, DType dtype, Arena& arena) const;

  // Rows may be worked off some at a time, each time with the slice of `saved` that belongs to them: x, y and dx are
  // [S, D], network n's rows are [row_begin[n], row_begin[n + 1]).
  void forward(const Tensor& x, std::span<const std::int64_t> row_begin, const Saved& saved, Tensor y);
  // What forward() leaves in `saved`, without y: for a backward that keeps the input alone.
  void forward_hidden(const Tensor& x, std::span<const std::int64_t> row_begin, const Saved& saved);
  // dx is assigned, or added to. In `saved`, the gradients of gate and up take the place of gate and up.
  void backward_input(const Tensor& dy, std::span<const std::int64_t> row_begin, Arena& scratch, const Saved& saved,
                      Tensor dx, bool add_to_dx);
  // After backward_input() of all rows: the weights' gradients.
  void backward_weights(const Tensor& dy, const Tensor& x, const RowSegments& rows, const Saved& saved);
  // The same where row_begin lies on a CUDA device, int32 [networks + 1], and the host does not know it. Each network's
  // rows are one micro-batch.
  void forward(const Tensor& x, const Tensor& row_begin, const Saved& saved, Tensor y);
  void forward_hidden(const Tensor& x, const Tensor& row_begin, const Saved& saved);
  void backward_input(const Tensor& dy, const Tensor& row_begin, Arena& scratch, const Saved& saved, Tensor dx,
                      bool add_to_dx);
  void backward_weights(const Tensor& dy, const Tensor& x, const Tensor& row_begin, const Saved& saved);
  // Those of one network whose segment is split over several calls, one chain over all of them: the sums of the calls
  // so far are in `carried`, which is zero before the first one; add_carried() adds it to the gradients and makes it
  // zero.
  struct Carried {
    Tensor gate, up, down;  // of the weights' shapes
  };
  Carried allocate_carried(Arena& arena) const;  // zero
  void carry_weights(const Tensor& dy, const Tensor& x, RowRange rows, Arena& scratch, const Saved& saved,
                     const Carried& carried);
  void add_carried(std::int64_t network, const Carried& carried);

  // One network, all rows, one micro-batch: a dense layer.
  void forward(const Tensor& x, Arena& arena, Saved& saved, Tensor y);
  void forward_hidden(const Tensor& x, Arena& arena, Saved& saved);
  void backward(const Tensor& dy, const Tensor& x, Arena& scratch, const Saved& saved, Tensor dx, bool add_to_dx);

 private:
  // RowBegin: std::span<const std::int64_t> or Tensor.
  template <class RowBegin>
  void hidden_of(const Tensor& x, const RowBegin& row_begin, const Saved& saved);
  template <class RowBegin>
  void input_gradient(const Tensor& dy, const RowBegin& row_begin, Arena& scratch, const Saved& saved, Tensor dx,
                      bool add_to_dx);
  template <class AddGradients>
  void weight_gradients(const Tensor& dy, const Tensor& x, const Saved& saved, const AddGradients& add);

  Activation activation_;
  std::int64_t inner_width_ = 0;
  std::vector<PackedWeight> gate_, up_, down_;
};

}  // namespace switchyard
