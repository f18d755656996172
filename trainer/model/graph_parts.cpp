#include "trainer/model/graph_parts.h"

namespace switchyard {

GraphParts::Place GraphParts::place_of(const Tensor& on, const Tensor& beside) const {
  return {on.raw(),       beside.raw(),     on.shape(),
          arena_->mark(), scratch_->mark(), {arena_->moves(), scratch_->moves(), arena_->device().workspace_moves()}};
}

Block::Attended GraphParts::run(std::size_t layer, Block::Part part, const Tensor& on, const Tensor& beside,
                                const std::function<Block::Attended()>& work) {
  const Place place = place_of(on, beside);
  const auto known = parts_.find({layer, part});
  if (known == parts_.end() || known->second.place != place) {
    Known now;
    now.left = work();
    Place after = place_of(on, beside);
    now.taken = after.kept.in_use - place.kept.in_use;
    // What it took must lie in one piece, so that it can be taken again without it.
    const bool in_one_piece = after.kept.chunk == place.kept.chunk;
    after.kept = place.kept;
    const Block::Attended left = now.left;
    now.place = place;
    if (in_one_piece && after == place) {
      parts_.insert_or_assign({layer, part}, std::move(now));
    } else {
      parts_.erase({layer, part});
    }
    return left;
  }
  Known& there = known->second;
  if (there.graph == nullptr) {
    there.graph = arena_->device().capture([&] { there.left = work(); });
  } else if (there.taken > 0) {
    arena_->take(Bytes(there.taken));
  }
  there.graph->launch();
  ++launches_;
  return there.left;
}

}  // namespace switchyard
