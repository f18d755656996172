// One transformer layer, pre-norm: x + attention(norm(x)), then that + feed-forward or mixture of its norm.
//   T rows, D width
#pragma once

#include "layers/attention/attention_layer.h"
#include "layers/dense/feed_forward.h"
#include "layers/dense/norm_layer.h"
#include "layers/moe/moe_layer.h"

#include <functional>
#include <memory>
#include <variant>

namespace switchyard {

class Block {
 public:
  // What the first half of a layer leaves.
  struct Attended {
    NormLayer::Saved attention_norm, feed_norm;
    AttentionLayer::Saved attention;
    Tensor sum;  // [T, D], the residual stream after attention
    Tensor fed;  // [T, D], what the feed-forward sees
  };
  struct Saved {
    Tensor x;  // the layer's input
    Attended attended;
    FeedForward::Saved dense;
    MoeLayer::Saved moe;
  };
  Block(NormLayer attention_norm, AttentionLayer attention, NormLayer feed_norm,
        std::variant<FeedForward, MoeLayer> feed)
      : attention_norm_(attention_norm),
        attention_(std::move(attention)),
        feed_norm_(feed_norm),
        feed_(std::move(feed)) {}

  bool is_moe() const { return std::holds_alternative<MoeLayer>(feed_); }
  MoeLayer* moe() { return std::get_if<MoeLayer>(&feed_); }  // null for a dense layer
  const MoeLayer* moe() const { return std::get_if<MoeLayer>(&feed_); }

  // Where a layer's memory comes from. How much a mixture takes is another matter in each micro-batch, where slots
  // come from other ranks; of the rest it is always the same.
  struct Room {
    Arena& kept;  // until backward
    Arena& scratch;
    Arena& mixture_kept;
    Arena& mixture_scratch;
  };
  // Does the work of a part of a layer in which the host has no say: by calling it, or otherwise (GraphParts). on,
  // beside: two tensors that it reads.
  enum class Part { Forward, ForwardAgain, Backward };
  using Runner =
      std::function<Attended(Part, const Tensor& on, const Tensor& beside, const std::function<Attended()>& work)>;

  // x: [T, D] -> y: [T, D]. A mixture's report is asked for by moe()->report(saved.moe), if at all.
  void forward(const Tensor& x, std::int64_t sequences, double capacity_factor, const Tensor& rope, const Room& room,
               const Runner& run, Saved& saved, Tensor y);
  // Before backward(), where the arenas of forward() have been given up and saved.x alone has been kept: what else is
  // in `saved` is made again, with the same bits.
  void forward_again(std::int64_t sequences, const Tensor& rope, const Room& room, const Runner& run, Saved& saved);
  // dy: [T, D] becomes dx, in place.
  void backward(std::int64_t sequences, const Tensor& rope, const Room& room, const Runner& run, Saved& saved,
                Tensor dy);
  void pack();  // see PackedWeight
  void pack_attention() { attention_.pack(); }
  // Generation: the next rows of one sequence, after `past`.
  void decode(std::int64_t past, const Tensor& rope, KeyValueCache& cache, Arena& scratch, Tensor x);

 private:
  Attended attend(const Tensor& x, std::int64_t sequences, const Tensor& rope, Arena& arena, Arena& scratch);

  NormLayer attention_norm_;
  AttentionLayer attention_;
  NormLayer feed_norm_;
  std::variant<FeedForward, MoeLayer> feed_;
};

}  // namespace switchyard
