// One transformer layer, pre-norm: x + attention(norm(x)), then that + feed-forward or mixture of its norm.
//   T rows, D width
#pragma once

#include "layers/attention/attention_layer.h"
#include "layers/dense/feed_forward.h"
#include "layers/dense/norm_layer.h"
#include "layers/moe/moe_layer.h"

#include <memory>
#include <variant>

namespace switchyard {

class Block {
 public:
  struct Saved {
    Tensor x;  // the layer's input
    NormLayer::Saved attention_norm, feed_norm;
    AttentionLayer::Saved attention;
    Tensor fed;  // what the feed-forward saw
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

  // x: [T, D] -> y: [T, D]. A mixture's report is asked for by moe()->report(saved.moe), if at all.
  void forward(const Tensor& x, std::int64_t sequences, double capacity_factor, const Tensor& rope, Arena& arena,
               Arena& scratch, Saved& saved, Tensor y);
  // Before backward(), where the arena of forward() has been given up and saved.x alone has been kept: what else is in
  // `saved` is made again, with the same bits.
  void forward_again(std::int64_t sequences, const Tensor& rope, Arena& arena, Arena& scratch, Saved& saved);
  // dy: [T, D] becomes dx, in place.
  void backward(std::int64_t sequences, const Tensor& rope, Arena& scratch, Saved& saved, Tensor dy);
  void pack();  // see PackedWeight
  // Generation: the next rows of one sequence, after `past`.
  void decode(std::int64_t past, const Tensor& rope, KeyValueCache& cache, Arena& scratch, Tensor x);

 private:
  // saved.x -> the residual stream after attention, and saved.fed.
  Tensor attend(std::int64_t sequences, const Tensor& rope, Arena& arena, Arena& scratch, Saved& saved);

  NormLayer attention_norm_;
  AttentionLayer attention_;
  NormLayer feed_norm_;
  std::variant<FeedForward, MoeLayer> feed_;
};

}  // namespace switchyard
