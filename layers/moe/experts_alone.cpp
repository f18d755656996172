// The experts of a rank that has all of them, on a CUDA device.
#include "layers/moe/experts.h"
#include "layers/ops/rows.h"

namespace switchyard {

void Experts::forward_alone(const Tensor& x, const Tensor& chosen, const Tensor& weights, const Tensor& begin,
                            Arena& arena, Arena& hidden, Alone& saved) {
  require(begin.size() == experts() + 1, "experts: {} are here, of {}", experts(), begin.size() - 1);
  saved.slots = allocate_sorted_slots(chosen.dim(0), chosen.dim(1), begin, arena);
  sort_slots(chosen, weights, saved.slots);
  const Shape shape{chosen.size(), x.dim(1)};
  saved.input = allocate(arena, shape, x.dtype());
  saved.output = allocate(arena, shape, x.dtype());
  saved.feed_forward = feed_forward_.allocate_saved(chosen.size(), x.dtype(), hidden);
  gather_rows(x, saved.slots.token, saved.input);
  feed_forward_.forward(saved.input, begin, saved.feed_forward, saved.output);
}

void Experts::forward_hidden_alone(Arena& hidden, Alone& saved) {
  saved.feed_forward = feed_forward_.allocate_saved(saved.input.dim(0), saved.input.dtype(), hidden);
  feed_forward_.forward_hidden(saved.input, saved.slots.begin, saved.feed_forward);
}

void Experts::backward_alone(const Tensor& dy, Arena& scratch, Alone& saved, Tensor dx, Tensor dweights) {
  const ArenaScope scope(scratch);
  Tensor dweight = allocate(scratch, saved.slots.weight.shape());
  // The output is used up: its memory takes the gradient.
  combine_slots_backward(dy, saved.slots, saved.output, dweight);
  unsort(dweight, saved.slots, dweights);
  Tensor dinput = allocate(scratch, saved.input.shape(), saved.input.dtype());
  feed_forward_.backward_input(saved.output, saved.slots.begin, scratch, saved.feed_forward, dinput,
                               /*add_to_dx=*/false);
  sum_slots(dinput, saved.slots, dx);
  feed_forward_.backward_weights(saved.output, saved.input, saved.slots.begin, saved.feed_forward);
}

}  // namespace switchyard
