// A micro-batch's forward and backward as one graph: where one GPU has all experts and drops no slot, what the host
// does for a micro-batch depends on nothing that is computed, and can be done once and for all.
//
// A graph has the addresses of all that it works on. It is made when two micro-batches of one size after another have
// taken no memory, and is thrown away when memory has moved. Where the host must know where slots go, parts of layers
// are graphs instead (GraphParts).
#include "comm/group/environment.h"
#include "trainer/model/model.h"

namespace switchyard {

Model::Moves Model::memory_moves() const {
  return {activations_.moves(), scratch_.moves(), mixture_activations_.moves(), mixture_scratch_.moves(),
          device_->workspace_moves()};
}

void Model::watch_memory(const Pass& pass) {
  if (!parts_) return;
  in_parts_ = false;
  for (std::size_t l = 0; l < blocks_.size(); ++l) in_parts_ |= blocks_[l].is_moe() && !pass.layers[l].moe.alone;
  may_capture_ = !in_parts_ && pass.sequences > 0 && last_sequences_ == pass.sequences && last_moves_ == memory_moves();
  last_sequences_ = pass.sequences;
  last_moves_ = memory_moves();
}

bool Model::has_graph(std::int64_t sequences) {
  if (device_->record() != nullptr) return false;  // which is of single ops
  if (captured_ && (captured_->moves != memory_moves() || captured_->pass.sequences != sequences)) {
    captured_.reset();
    may_capture_ = false;
  }
  if (captured_) return true;
  if (!may_capture_ || last_sequences_ != sequences || last_moves_ != memory_moves()) return false;
  Captured made;
  made.pass.sequences = sequences;
  made.pass.tokens = allocate(activations_, {sequences * config_.model.seq_len}, DType::I32);
  made.pass.targets = allocate(activations_, made.pass.tokens.shape(), DType::I32);
  pack_weights();
  made.graph = device_->capture([&] {
    forward(made.pass);
    backward(made.pass);
  });
  made.moves = memory_moves();
  captured_ = std::move(made);
  return true;
}

MicroBatchReport Model::launch_graph(const MicroBatch& batch) {
  const auto give = [&](const Tensor& to, std::span<const std::int32_t> values) {
    device_->copy_from_host(to.raw(), values.data(), Bytes(isize(values.size_bytes())), device_->stream());
  };
  give(captured_->pass.tokens, batch.tokens);
  give(captured_->pass.targets, batch.targets);
  pack_weights();
  set_progress(progress_step(), "forward and backward");
  captured_->graph->launch();
  MicroBatchReport result = report(captured_->pass);
  result.graphs = 1;
  return result;
}

void Model::pack_weights() {
  for (Block& block : blocks_) block.pack();
  head_.pack();
}

}  // namespace switchyard
