#include "trainer/model/block.h"

#include "layers/ops/activation.h"

namespace switchyard {

void Block::forward(const Tensor& x, std::int64_t sequences, double capacity_factor, const Tensor& rope,
                    const Room& room, const Runner& run, Saved& saved, Tensor y) {
  saved.x = x;
  saved.attended = run(Part::Forward, x, rope, [&] { return attend(x, sequences, rope, room.kept, room.scratch); });
  const Tensor& fed = saved.attended.fed;
  if (auto* moe = std::get_if<MoeLayer>(&feed_)) {
    moe->forward(fed, saved.attended.sum, capacity_factor, room.mixture_kept, room.mixture_scratch, saved.moe, y);
  } else {
    std::get<FeedForward>(feed_).forward(fed, room.kept, saved.dense, y);
    add_in_place(saved.attended.sum, y);
  }
}

Block::Attended Block::attend(const Tensor& x, std::int64_t sequences, const Tensor& rope, Arena& arena,
                              Arena& scratch) {
  Attended left;
  left.sum = allocate(arena, x.shape(), x.dtype());
  Tensor normed = allocate(arena, x.shape(), x.dtype());
  attention_norm_.forward(x, arena, left.attention_norm, normed);
  attention_.forward(normed, sequences, rope, arena, scratch, left.attention, left.sum);
  left.fed = allocate(arena, x.shape(), x.dtype());
  feed_norm_.forward_sum(x, left.sum, arena, left.feed_norm, left.fed);
  return left;
}

void Block::forward_again(std::int64_t sequences, const Tensor& rope, const Room& room, const Runner& run,
                          Saved& saved) {
  const Tensor& x = saved.x;
  saved.attended =
      run(Part::ForwardAgain, x, rope, [&] { return attend(x, sequences, rope, room.kept, room.scratch); });
  if (auto* moe = std::get_if<MoeLayer>(&feed_)) {
    moe->forward_again(saved.attended.fed, room.mixture_kept, room.mixture_scratch, saved.moe);
  } else {
    std::get<FeedForward>(feed_).forward_hidden(saved.attended.fed, room.kept, saved.dense);
  }
}

void Block::backward(std::int64_t sequences, const Tensor& rope, const Room& room, const Runner& run, Saved& saved,
                     Tensor dy) {
  const ArenaScope scope(room.scratch);
  Tensor dnormed = allocate(room.scratch, dy.shape(), dy.dtype());
  if (auto* moe = std::get_if<MoeLayer>(&feed_)) {
    moe->backward(dy, room.mixture_scratch, saved.moe, dnormed);
  } else {
    std::get<FeedForward>(feed_).backward(dy, saved.attended.fed, room.scratch, saved.dense, dnormed,
                                          /*add_to_dx=*/false);
  }
  run(Part::Backward, dy, saved.attended.fed, [&] {
    Attended& attended = saved.attended;
    feed_norm_.backward(dnormed, attended.feed_norm, dy, /*add_to_dx=*/true);
    attention_.backward(dy, sequences, rope, room.scratch, attended.attention, dnormed);
    attention_norm_.backward(dnormed, attended.attention_norm, dy, /*add_to_dx=*/true);
    return Attended();
  });
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
    moe->forward(normed, /*residual=*/Tensor(), /*capacity_factor=*/0, scratch, scratch, saved, y);
  } else {
    FeedForward::Saved saved;
    std::get<FeedForward>(feed_).forward(normed, scratch, saved, y);
  }
  add_in_place(y, x);
}

}  // namespace switchyard
