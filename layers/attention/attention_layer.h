// The attention block: projections, rotary positions, causal attention, output projection.
//   T = sequences * positions rows, D width, H query heads, G KV heads, C head width
#pragma once

#include "layers/attention/attention.h"
#include "layers/dense/linear.h"

namespace switchyard {

// Keys and values of one sequence, for generation.
struct KeyValueCache {
  Tensor keys;    // [capacity, G * C]
  Tensor values;  // [capacity, G * C]
};

class AttentionLayer {
 public:
  struct Saved {
    Tensor x, q, k, v, out, log_sum_exp;
  };
  // Weights: q [H C, D], k and v [G C, D], o [D, H C]. by: whose attention, in training and evaluation.
  AttentionLayer(Parameter& q, Parameter& k, Parameter& v, Parameter& o, std::int64_t heads, std::int64_t kv_heads,
                 AttentionBy by = AttentionBy::Ours)
      : q_(q), k_(k), v_(v), o_(o), heads_(heads), kv_heads_(kv_heads), head_dim_(q.shape()[0] / heads), by_(by) {}

  // rope: table for the positions; x, y: [T, D].
  void forward(const Tensor& x, std::int64_t sequences, const Tensor& rope_table, Arena& arena, Arena& scratch,
               Saved& saved, Tensor y);
  // dx: [T, D] is assigned. What `saved` holds is used up.
  void backward(const Tensor& dy, std::int64_t sequences, const Tensor& rope_table, Arena& scratch, Saved& saved,
                Tensor dx);
  // The next x.rows() positions of one sequence, after the `past` that the cache holds. rope_table: of those positions.
  void decode(const Tensor& x, std::int64_t past, const Tensor& rope_table, KeyValueCache& cache, Arena& scratch,
              Tensor y);

  void pack() {  // see PackedWeight
    for (Linear* const linear : {&q_, &k_, &v_, &o_}) linear->pack();
  }

 private:
  AttentionShape shape(std::int64_t sequences, std::int64_t rows) const;

  Linear q_, k_, v_, o_;
  std::int64_t heads_, kv_heads_, head_dim_;
  AttentionBy by_;
};

}  // namespace switchyard
