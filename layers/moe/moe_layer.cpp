#include "layers/moe/moe_layer.h"

#include "comm/group/environment.h"

namespace switchyard {

MoeLayer::MoeLayer(Router router, Experts experts, std::optional<FeedForward> shared, Placement placement,
                   Exchange& exchange, Numerics numerics)
    : router_(std::move(router)),
      experts_(std::move(experts)),
      shared_(std::move(shared)),
      placement_(std::move(placement)),
      exchange_(&exchange),
      numerics_(numerics) {}

void MoeLayer::place(Placement placement, Experts experts) {
  placement_ = std::move(placement);
  experts_ = std::move(experts);
}

MoeReport MoeLayer::forward(const Tensor& x, double capacity_factor, Arena& arena, Arena& scratch, Saved& saved,
                            Tensor y) {
  const RouterSettings& settings = router_.settings();
  const std::int64_t tokens = x.dim(0);
  const std::int64_t width = x.dim(1);
  saved.x = x;

  router_.forward(x, arena, scratch, saved.router);
  saved.assignment = assign(saved.router.experts, saved.router.weights, settings.experts,
                            expert_capacity(tokens, settings.top_k, settings.experts, capacity_factor));
  const Rank sender = exchange_->group().rank();
  std::vector<Slot> slots;
  slots.reserve(saved.assignment.kept.size());
  for (const AssignedSlot& slot : saved.assignment.kept) {
    slots.push_back({slot.token, placement_.owner(slot.expert, sender), slot.expert, slot.weight});
  }
  set_progress(progress_step(), "exchange");
  saved.plan = exchange_->plan(tokens, slots);

  const ArenaScope scope(scratch);
  Tensor received = allocate(scratch, {saved.plan.received_rows(), width});
  exchange_->dispatch(saved.plan, x.f32(), width, received.f32());
  set_progress(progress_step(), "experts");
  Tensor slot_rows = allocate(scratch, {saved.plan.received_slots(), width});
  experts_.forward(received, saved.plan, arena, saved.experts, slot_rows);
  set_progress(progress_step(), "exchange");
  combine(saved.plan, slot_rows, saved.experts, nullptr, scratch, y, nullptr);
  set_progress(progress_step(), "forward");

  if (shared_) {
    Tensor shared_y = allocate(scratch, y.shape());
    shared_->forward(x, RowSegments::single(tokens), arena, saved.shared, shared_y);
    add_in_place(shared_y, y);
  }

  MoeReport report;
  report.losses = router_.losses(saved.router, saved.assignment.chosen);
  report.chosen = saved.assignment.chosen;
  report.kept = isize(saved.assignment.kept.size());
  report.dropped = saved.assignment.dropped;
  return report;
}

void MoeLayer::backward(const Tensor& dy, Arena& scratch, Saved& saved, Tensor dx) {
  const RouterSettings& settings = router_.settings();
  const std::int64_t tokens = dy.dim(0);
  const std::int64_t width = dy.dim(1);
  const ArenaScope scope(scratch);

  set_progress(progress_step(), "exchange (backward)");
  Tensor dreceived = allocate(scratch, {saved.plan.received_rows(), width});
  exchange_->dispatch(saved.plan, dy.f32(), width, dreceived.f32());
  set_progress(progress_step(), "experts (backward)");
  Tensor dslot_rows = allocate(scratch, {saved.plan.received_slots(), width});
  Tensor dreceived_weight = allocate(scratch, {saved.plan.received_slots()});
  experts_.backward(dreceived, scratch, saved.experts, dslot_rows, dreceived_weight);
  std::vector<float> dslot_weight(saved.assignment.kept.size());
  set_progress(progress_step(), "exchange (backward)");
  combine(saved.plan, dslot_rows, saved.experts, dreceived_weight.f32(), scratch, dx, dslot_weight.data());
  set_progress(progress_step(), "backward");

  if (shared_) {
    shared_->backward(dy, saved.x, RowSegments::single(tokens), scratch, saved.shared, dx, /*add_to_dx=*/true);
  }

  Tensor dweights = allocate_zero(scratch, {tokens, settings.top_k});
  for (std::size_t i = 0; i < dslot_weight.size(); ++i) {
    const AssignedSlot& slot = saved.assignment.kept[i];
    dweights.f32()[slot.token * settings.top_k + slot.choice] = dslot_weight[i];
  }
  router_.backward(dweights, saved.x, saved.router, saved.assignment.chosen, scratch, dx);
}

void MoeLayer::combine(const Plan& plan, const Tensor& slot_rows, const Experts::Saved& saved, const float* scalars,
                       Arena& scratch, Tensor rows, float* slot_scalars) {
  const std::int64_t width = slot_rows.dim(1);
  if (numerics_ == Numerics::Reproducible) {
    exchange_->combine_slots(plan, slot_rows.f32(), width, scalars, rows.f32(), slot_scalars);
    return;
  }
  const ArenaScope scope(scratch);
  Tensor sums = allocate(scratch, {plan.received_rows(), width});
  sum_slots(slot_rows, saved, scratch, sums);
  exchange_->combine_rows(plan, sums.f32(), width, scalars, rows.f32(), slot_scalars);
}

}  // namespace switchyard
