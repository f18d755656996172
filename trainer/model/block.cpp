#include "trainer/model/block.h"

#include "layers/ops/activation.h"

namespace switchyard {

void Block::forward(const Tensor& x, std::int64_t sequences, double capacity_factor, const Tensor& rope, Arena& arena,
                    Arena& scratch, Saved& saved, Tensor y) {
  saved.x = x;
  const Tensor attended = attend(sequences, rope, arena, scratch, saved);
  if (auto* moe = std::get_if<MoeLayer>(&feed_)) {
    moe->forward(saved.fed, capacity_factor, arena, scratch, saved.moe, y);
  } else {
    std::get<FeedForward>(feed_).forward(saved.fed, arena, saved.dense, y);
  }
  add_in_place(attended, y);
}

Tensor Block::attend(std::int64_t sequences, const Tensor& rope, Arena& arena, Arena& scratch, Saved& saved) {
  const Tensor& x = saved.x;
  Tensor attended = allocate(arena, x.shape(), x.dtype());
  Tensor normed = allocate(arena, x.shape(), x.dtype());
  attention_norm_.forward(x, arena, saved.attention_norm, normed);
  attention_.forward(normed, sequences, rope, arena, scratch, saved.attention, attended);
  saved.fed = allocate(arena, x.shape(), x.dtype());
  feed_norm_.forward_sum(x, attended, arena, saved.feed_norm, saved.fed);
  return attended;
}

void Block::forward_again(std::int64_t sequences, const Tensor& rope, Arena& arena, Arena& scratch, Saved& saved) {
  attend(sequences, rope, arena, scratch, saved);
  if (auto* moe = std::get_if<MoeLayer>(&feed_)) {
    moe->forward_again(saved.fed, arena, scratch, saved.moe);
  } else {
    std::get<FeedForward>(feed_).forward_hidden(saved.fed, arena, saved.dense);
  }
}

void Block::backward(std::int64_t sequences, const Tensor& rope, Arena& scratch, Saved& saved, Tensor dy) {
  const ArenaScope scope(scratch);
  Tensor dnormed = allocate(scratch, dy.shape(), dy.dtype());
  if (auto* moe = std::get_if<MoeLayer>(&feed_)) {
    moe->backward(dy, scratch, saved.moe, dnormed);
  } else {
    std::get<FeedForward>(feed_).backward(dy, saved.fed, scratch, saved.dense, dnormed,
                                          /*add_to_dx=*/false);
  }
  feed_norm_.backward(dnormed, saved.feed_norm, dy, /*add_to_dx=*/true);

  attention_.backward(dy, sequences, rope, scratch, saved.attention, dnormed);
  attention_norm_.backward(dnormed, saved.attention_norm, dy, /*add_to_dx=*/true);
}

void Block::pack() {
  attention_.pack();
  std::visit([](auto& feed) { feed.pack(); }, feed_);
}

void Block::decode(std::int64_t past, const Tensor& rope, KeyValueCache& cache, Arena& scratch, Tensor x) {
  const ArenaScope scope(scratch);
  Tensor normed = allocate(scratch, x.shape(), x.dtype());
  Tensor y = allocate(scratch, x.shape(), x.dtype());
  NormLayer::Saved norm;
  attention_norm_.forward(x, scratch, norm, normed);
  attention_.decode(normed, past, rope, cache, scratch, y);
  add_in_place(y, x);

  feed_norm_.forward(x, scratch, norm, normed);
  if (auto* moe = std::get_if<MoeLayer>(&feed_)) {
    MoeLayer::Saved saved;
    // Nothing is kept for a backward, so that what the layer would save may come from the scratch as well.
    moe->forward(normed, /*capacity_factor=*/0, scratch, scratch, saved, y);
  } else {
    FeedForward::Saved saved;
    std::get<FeedForward>(feed_).forward(normed, scratch, saved, y);
  }
  add_in_place(y, x);
}

}  // namespace switchyard
