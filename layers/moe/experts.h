// The experts of one rank: received slots are sorted by expert, worked off in one chain of grouped products, weighted,
// and put back into the order in which they came. The slots of a micro-batch may come in several pieces.
//   R received rows, S received slots of a piece, D width
#pragma once

#include "comm/base/numerics.h"
#include "comm/exchange/plan.h"
#include "layers/dense/feed_forward.h"
#include "layers/moe/slot_sort.h"

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

class Experts {
 public:
  struct Piece {
    RowRange slots;                       // its part of what follows in Saved
    std::vector<std::int64_t> row_begin;  // [experts + 1], counted from slots.begin
    std::vector<RowRange> segments;       // [experts, sources], as they lie in Saved
    Tensor row;                           // int32 [S]: sorted slot -> received row
    Tensor place;                         // int32 [S]: sorted slot -> its place in `received`
    Tensor weight;                        // [S], sorted: gate weights
    Tensor first_slot;                    // int32 [R + 1]: received row -> its first slot in `received`
  };
  struct Saved {
    std::vector<Piece> pieces;
    Tensor input;   // [slots of all pieces, D], sorted within each piece
    Tensor output;  // the same, before weighting
    FeedForward::Saved feed_forward;
  };
  // local: the experts that are here, ascending, each with its network.
  Experts(std::span<const std::int32_t> local, std::span<const FeedForwardWeights> networks, Activation activation);

  void pack() { feed_forward_.pack(); }  // see PackedWeight

  // Makes room for the slots of all pieces that forward() will bring; for what is hidden between input and output,
  // which is the most of it, in an arena of its own.
  void begin(std::int64_t slots, std::int64_t width, DType dtype, Arena& arena, Arena& hidden, Saved& saved) const;
  // The next piece, which has arrived. received: [R, D].
  void forward(const Tensor& received, const PlanPiece& piece, Arena& arena, Saved& saved);
  // slot_rows: [S, D], weighted outputs in the order of piece.received.
  void weigh(std::size_t piece, const Saved& saved, Tensor slot_rows) const;

  // Before backward(), where the memory of what is hidden has not been kept: makes room for it, and computes a piece's
  // again.
  void begin_hidden(Arena& hidden, Saved& saved) const;
  void forward_hidden(std::size_t piece, Saved& saved);

  // dreceived: [R, D], the gradient of each row's weighted sum -> dslot_rows: [S, D], the gradient of the inputs, and
  // dweight: [S], both in the order of piece.received.
  void backward(std::size_t piece, const Tensor& dreceived, Arena& scratch, Saved& saved, Tensor dslot_rows,
                Tensor dweight);
  // After backward() of all pieces: the weights' gradients, one partial for each expert and source.
  void backward_weights(const Saved& saved);

  // The same for a rank alone whose rows lie on a CUDA device: from the router's choices to the sums of the outputs
  // without a word from the host, which does not know how many slots an expert has. All experts are here.
  struct Alone {
    SortedSlots slots;
    Tensor input, output;  // [T K, D], sorted
    FeedForward::Saved feed_forward;
  };
  // x: [T, D]; chosen: int32 [T, K], weights: [T, K]; begin: int32 [E + 1], for saved.slots.begin. y: [T, D] is
  // combine_slots() of saved.output.
  void forward_alone(const Tensor& x, const Tensor& chosen, const Tensor& weights, const Tensor& begin, Arena& arena,
                     Arena& hidden, Alone& saved);
  void forward_hidden_alone(Arena& hidden, Alone& saved);  // again: its memory has not been kept
  // dx: [T, D] is assigned, dweights: [T, K]
  void backward_alone(const Tensor& dy, Arena& scratch, Alone& saved, Tensor dx, Tensor dweights);

  // Where pieces are worked off one at a time and forgotten, a source's slots may be spread over several of them. What
  // the chains of its partials have come to is carried from one to the next.
  class Carry {
   public:
    Carry(const Experts& experts, Arena& arena);

   private:
    friend class Experts;
    std::vector<FeedForward::Carried> sums_;  // by expert
    int source_ = -1;                         // whose they are
  };
  // Instead of backward_weights(), for the one piece in `saved`, which is number `index` of the plan.
  void backward_weights_of_round(const Plan& plan, std::size_t index, const Saved& saved, Arena& scratch, Carry& carry);

 private:
  void sort(const PlanPiece& piece, Arena& arena, Piece& sorted) const;
  std::int64_t experts() const { return feed_forward_.networks(); }

  std::vector<std::int32_t> network_of_;  // by expert, up to the last that is here; -1: elsewhere
  FeedForward feed_forward_;
};

}  // namespace switchyard
