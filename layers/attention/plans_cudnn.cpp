// cuDNN finds its fused kernels by the shape of the graph: the operations and their order are those that its own front
// end gives it (NVIDIA/cudnn-frontend, scaled_dot_product_flash_attention.h, for versions before 9.21).
#include "layers/attention/plans_cudnn.h"

namespace switchyard::cudnn {
namespace {

// B sequences, H query heads, G KV heads, S positions, C head width, W of values
struct Sizes {
  explicit Sizes(const AttentionShape& shape)
      : b(shape.sequences),
        h(shape.heads),
        g(shape.kv_heads),
        s(shape.positions),
        c(shape.head_dim),
        w(shape.value_width()) {}
  Extents of_queries(std::int64_t columns) const { return {b, h, s, columns}; }
  Extents of_keys(std::int64_t columns) const { return {b, g, s, columns}; }
  std::int64_t b, h, g, s, c, w;
};

// A tensor [B * S, heads * columns] of ours, seen as [B, heads, S, columns].
Graph::Value rows(Graph& graph, Uid uid, const Extents& dims) {
  const Extents strides = {dims[2] * dims[1] * dims[3], dims[3], dims[1] * dims[3], 1};
  return graph.memory(uid, dims, strides, CUDNN_DATA_BFLOAT16);
}
// The same seen as [B, heads, columns, S].
Graph::Value columns(Graph& graph, Uid uid, const Extents& dims) {
  const Extents strides = {dims[2] * dims[1] * dims[3], dims[3], 1, dims[1] * dims[3]};
  return graph.memory(uid, {dims[0], dims[1], dims[3], dims[2]}, strides, CUDNN_DATA_BFLOAT16);
}

Graph::Value scaled(Graph& graph, const Sizes& n, Graph::Value x, Graph::Value scale) {
  const Graph::Value y = graph.between(n.of_queries(n.s));
  graph.pointwise(CUDNN_POINTWISE_MUL, x, scale, y);
  return y;
}

// Scores of keys behind their query become minus infinity.
Graph::Value masked(Graph& graph, const Sizes& n, Graph::Value scores) {
  const Extents dims = n.of_queries(n.s);
  const Graph::Value query = graph.between(dims, CUDNN_DATA_INT32);
  const Graph::Value key = graph.between(dims, CUDNN_DATA_INT32);
  const Graph::Value sees = graph.between(dims, CUDNN_DATA_BOOLEAN);
  const Graph::Value result = graph.between(dims);
  graph.index(2, scores, query);
  graph.index(3, scores, key);
  graph.pointwise(CUDNN_POINTWISE_CMP_GE, query, key, sees, CUDNN_DATA_BOOLEAN);
  graph.select(sees, scores, graph.scalar(MinusInfinity), result);
  return result;
}

// x [B, H, S, S], seen transposed and rounded to bf16 on the way into a product.
Graph::Value transposed(Graph& graph, const Sizes& n, Graph::Value x) {
  const Graph::Value y = graph.between(n.of_queries(n.s), {n.h * n.s * n.s, n.s * n.s, 1, n.s}, CUDNN_DATA_BFLOAT16);
  graph.reshape(x, y);
  return y;
}

// result [B, G, S, width] = a b, summed over the query heads of each KV head.
void product_of_heads(Graph& graph, const Sizes& n, Graph::Value a, Graph::Value b, std::int64_t width,
                      Graph::Value result) {
  if (n.h == n.g) return graph.product(a, b, result);
  const Graph::Value of_each_head = graph.between(n.of_queries(width), CUDNN_DATA_BFLOAT16);
  graph.product(a, b, of_each_head);
  graph.reduce(CUDNN_REDUCE_TENSOR_ADD, of_each_head, result);
}

}  // namespace

Plan plan_forward(const AttentionShape& shape, const Target& target) {
  const Sizes n(shape);
  const Extents a_row = n.of_queries(1);
  Graph graph;
  const Graph::Value q = rows(graph, Q, n.of_queries(n.c));
  const Graph::Value k = columns(graph, K, n.of_keys(n.c));
  const Graph::Value v = rows(graph, V, n.of_keys(n.w));

  Graph::Value scores = graph.between(n.of_queries(n.s));
  graph.product(q, k, scores);
  scores = masked(graph, n, scaled(graph, n, scores, graph.scalar(Scale)));

  const Graph::Value highest = graph.between(a_row);
  const Graph::Value below = graph.between(n.of_queries(n.s));
  const Graph::Value exponentials = graph.between(n.of_queries(n.s));
  const Graph::Value sum = graph.between(a_row);
  const Graph::Value logarithm = graph.between(a_row);
  graph.reduce(CUDNN_REDUCE_TENSOR_MAX, scores, highest);
  graph.pointwise(CUDNN_POINTWISE_SUB, scores, highest, below);
  graph.pointwise(CUDNN_POINTWISE_EXP, below, exponentials);
  graph.reduce(CUDNN_REDUCE_TENSOR_ADD, exponentials, sum);
  graph.pointwise(CUDNN_POINTWISE_LOG, sum, logarithm);
  graph.pointwise(CUDNN_POINTWISE_ADD, highest, logarithm,
                  graph.memory(LogSumExp, a_row, strides_of(a_row), CUDNN_DATA_FLOAT));
  const Graph::Value weights = graph.between(n.of_queries(n.s), CUDNN_DATA_BFLOAT16);
  graph.pointwise(CUDNN_POINTWISE_DIV, exponentials, sum, weights);

  graph.product(weights, v, rows(graph, Out, n.of_queries(n.w)));
  return graph.plan(target);
}

Plan plan_backward(const AttentionShape& shape, const Target& target) {
  const Sizes n(shape);
  const Extents a_row = n.of_queries(1);
  Graph graph;
  const Graph::Value q = rows(graph, Q, n.of_queries(n.c));
  const Graph::Value k = columns(graph, K, n.of_keys(n.c));
  const Graph::Value v = columns(graph, V, n.of_keys(n.w));
  const Graph::Value dout = rows(graph, DOut, n.of_queries(n.w));
  const Graph::Value scale = graph.scalar(Scale);

  const Graph::Value products = graph.between(n.of_queries(n.w));
  const Graph::Value sums = graph.between(a_row);
  const Graph::Value mean = graph.memory(Mean, a_row, strides_of(a_row), CUDNN_DATA_FLOAT);
  graph.pointwise(CUDNN_POINTWISE_MUL, dout, rows(graph, Out, n.of_queries(n.w)), products);
  graph.reduce(CUDNN_REDUCE_TENSOR_ADD, products, sums);
  graph.pointwise(CUDNN_POINTWISE_MUL, sums, graph.scalar(One), mean);

  Graph::Value scores = graph.between(n.of_queries(n.s));
  graph.product(q, k, scores);
  scores = scaled(graph, n, scores, scale);
  const Graph::Value below = graph.between(n.of_queries(n.s));
  graph.pointwise(CUDNN_POINTWISE_SUB, scores, graph.memory(LogSumExp, a_row, strides_of(a_row), CUDNN_DATA_FLOAT),
                  below);
  const Graph::Value weights = graph.between(n.of_queries(n.s));
  graph.pointwise(CUDNN_POINTWISE_EXP, masked(graph, n, below), weights);
  product_of_heads(graph, n, transposed(graph, n, weights), dout, n.w, rows(graph, DV, n.of_keys(n.w)));

  const Graph::Value dweights = graph.between(n.of_queries(n.s));
  const Graph::Value differences = graph.between(n.of_queries(n.s));
  const Graph::Value slopes = graph.between(n.of_queries(n.s));
  graph.product(dout, v, dweights);
  graph.pointwise(CUDNN_POINTWISE_SUB, dweights, mean, differences);
  graph.pointwise(CUDNN_POINTWISE_MUL, differences, weights, slopes);
  const Graph::Value dscores = scaled(graph, n, slopes, scale);
  product_of_heads(graph, n, transposed(graph, n, dscores), q, n.c, rows(graph, DK, n.of_keys(n.c)));

  // K once more, not transposed: the view that cuDNN knows for the same memory.
  const Extents keys = n.of_keys(n.c);
  const Graph::Value k_rows = graph.between(keys, {n.s * n.g * n.c, n.c, n.g * n.c, 1}, CUDNN_DATA_BFLOAT16);
  graph.reshape(k, k_rows);
  const Graph::Value dq_sum = graph.memory(DQSum, n.of_queries(n.c), strides_of(n.of_queries(n.c)), CUDNN_DATA_FLOAT);
  graph.product(dscores, k_rows, dq_sum);
  graph.pointwise(CUDNN_POINTWISE_IDENTITY, dq_sum, rows(graph, DQ, n.of_queries(n.c)));
  return graph.plan(target);
}

}  // namespace switchyard::cudnn
