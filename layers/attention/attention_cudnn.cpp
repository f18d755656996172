#include "layers/attention/attention_cudnn.h"

#include "comm/base/log.h"
#include "comm/device/cuda.h"
#include "layers/attention/check_cudnn.h"
#include "layers/attention/plans_cudnn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <set>

namespace switchyard::cudnn {
namespace {

// What is given by value.
struct Scalars {
  explicit Scalars(const AttentionShape& shape)
      : scale(static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)))) {}
  float scale;
  float minus_infinity = -std::numeric_limits<float>::infinity();
  float one = 1;
};

struct Plans {
  Plan forward, backward;
};

// cuDNN on one device, for the life of the process.
class Cudnn {
 public:
  explicit Cudnn(Device& device) : device_(device) {
    check(library().create(&handle_), "cudnnCreate");
    check(library().set_stream(handle_, cuda::stream_of(device)), "cudnnSetStream");
  }

  // Null where cuDNN is not to be had for the shape.
  const Plans* plans(const AttentionShape& shape) {
    if (off_) return nullptr;
    const auto known = plans_.find(shape);
    if (known != plans_.end()) return known->second.get();
    std::unique_ptr<Plans>& made = plans_[shape];
    try {
      made = make(shape);
      const AttentionShape small = checked_shape(shape);
      if (!checked_.contains(small)) compare(small);
      checked_.insert(small);
    } catch (const Error& error) {
      made.reset();
      log_warning(
          "attention of {} sequences of {} positions with {} heads, {} KV heads and head width {} is not cuDNN's: {}; "
          "our kernels compute it",
          shape.sequences, shape.positions, shape.heads, shape.kv_heads, shape.head_dim, error.what());
    }
    return off_ ? nullptr : made.get();
  }

  void forward(const AttentionShape& shape, const Plan& plan, const Tensor& q, const Tensor& k, const Tensor& v,
               const Tensor& out, const Tensor& log_sum_exp) {
    Scalars scalars(shape);
    constexpr std::array<std::int64_t, 7> uids = {Q, K, V, Out, LogSumExp, Scale, MinusInfinity};
    const std::array<void*, 7> addresses = {
        q.raw(), k.raw(), v.raw(), out.raw(), log_sum_exp.raw(), &scalars.scale, &scalars.minus_infinity};
    plan.run(handle_, uids, addresses, device_.workspace(Bytes(plan.workspace())));
  }

  void backward(const AttentionShape& shape, const Plan& plan, const AttentionTensors& t, Arena& scratch) {
    const ArenaScope scope(scratch);
    const Tensor mean = allocate(scratch, t.log_sum_exp.shape());
    const Tensor dq_sum = allocate(scratch, t.dq.shape());
    Scalars scalars(shape);
    constexpr std::array<std::int64_t, 14> uids = {Q,  K,  V,    Out,   LogSumExp, DOut,          DQ,
                                                   DK, DV, Mean, DQSum, Scale,     MinusInfinity, One};
    const std::array<void*, 14> addresses = {t.q.raw(),
                                             t.k.raw(),
                                             t.v.raw(),
                                             t.out.raw(),
                                             t.log_sum_exp.raw(),
                                             t.dout.raw(),
                                             t.dq.raw(),
                                             t.dk.raw(),
                                             t.dv.raw(),
                                             mean.raw(),
                                             dq_sum.raw(),
                                             &scalars.scale,
                                             &scalars.minus_infinity,
                                             &scalars.one};
    plan.run(handle_, uids, addresses, device_.workspace(Bytes(plan.workspace())));
  }

  void give_up(const char* what) {
    if (!off_) log_warning("cuDNN is not used for attention any more, our kernels are: {}", what);
    off_ = true;
  }

 private:
  std::unique_ptr<Plans> make(const AttentionShape& shape) const {
    const Target target{.handle = handle_};
    return std::make_unique<Plans>(Plans{plan_forward(shape, target), plan_backward(shape, target)});
  }

  void compare(const AttentionShape& shape) {
    const std::unique_ptr<Plans> plans = make(shape);
    const double difference = difference_from_ours(
        device_, shape,
        [&](const AttentionTensors& t) { forward(shape, plans->forward, t.q, t.k, t.v, t.out, t.log_sum_exp); },
        [&](const AttentionTensors& t, Arena& scratch) { backward(shape, plans->backward, t, scratch); });
    constexpr double tolerance = 3e-2;
    if (difference <= tolerance) return;
    give_up(fmt::format("its results differ from ours by {:.2g} of their size (sequences of {} positions, {} heads, {} "
                        "KV heads, head width {})",
                        difference, shape.positions, shape.heads, shape.kv_heads, shape.head_dim)
                .c_str());
  }

  Device& device_;
  cudnnHandle_t handle_ = nullptr;
  std::map<AttentionShape, std::unique_ptr<Plans>> plans_;
  std::set<AttentionShape> checked_;
  bool off_ = false;
};

// Null where there is none. The caller holds `guard`.
std::mutex guard;
Cudnn* cudnn_of(Device& device) {
  // They live as long as the process, as its device does: at its end cuDNN and CUDA go before statics do.
  static auto& made = *new std::map<Device*, std::unique_ptr<Cudnn>>;
  static bool refused = false;
  if (refused || !why_not().empty()) return nullptr;
  std::unique_ptr<Cudnn>& mine = made[&device];
  if (mine == nullptr) {
    try {
      mine = std::make_unique<Cudnn>(device);
    } catch (const Error& error) {
      refused = true;
      log_warning("cuDNN is not used for attention, our kernels are: {}", error.what());
      return nullptr;
    }
  }
  return mine.get();
}

// run(cudnn, plans), and whether it did.
bool try_cudnn(const AttentionShape& shape, Device& device, const auto& run) {
  const std::lock_guard lock(guard);
  Cudnn* const cudnn = cudnn_of(device);
  const Plans* const plans = cudnn == nullptr ? nullptr : cudnn->plans(shape);
  if (plans == nullptr) return false;
  try {
    run(*cudnn, *plans);
    return true;
  } catch (const Error& error) {
    cudnn->give_up(error.what());
    return false;
  }
}

}  // namespace

const std::string& why_not() {
  return library().why_not;
}

bool fits(const AttentionShape& shape) {
  return shape.positions > 1 && shape.head_dim % 8 == 0 && shape.head_dim <= 256 && shape.value_width() % 8 == 0 &&
         shape.value_width() <= shape.head_dim;
}

bool takes(const AttentionShape& shape, const Tensor& q) {
  if (q.dtype() != DType::BF16 || !fits(shape)) return false;
  return try_cudnn(shape, q.device(), [](Cudnn&, const Plans&) {});
}

bool attention(const AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v, Tensor out,
               Tensor log_sum_exp) {
  return try_cudnn(shape, q.device(), [&](Cudnn& cudnn, const Plans& plans) {
    cudnn.forward(shape, plans.forward, q, k, v, out, log_sum_exp);
  });
}

bool attention_backward(const AttentionShape& shape, const Tensor& dout, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Tensor& out, const Tensor& log_sum_exp, Arena& scratch, Tensor dq,
                        Tensor dk, Tensor dv) {
  return try_cudnn(shape, q.device(), [&](Cudnn& cudnn, const Plans& plans) {
    cudnn.backward(shape, plans.backward, {q, k, v, out, log_sum_exp, dout, dq, dk, dv}, scratch);
  });
}

Bytes backward_memory(const AttentionShape& shape) {
  const std::int64_t rows = shape.sequences * shape.positions * shape.heads;
  const std::int64_t sums = rows * (shape.head_dim + 1) * size_of(DType::F32);
  // dk and dv of each query head, before those of a KV head are added up.
  const std::int64_t of_heads =
      shape.heads == shape.kv_heads ? 0 : rows * (shape.head_dim + shape.value_width()) * size_of(DType::BF16);
  return Bytes(sums + of_heads);
}

PlanFacts plan_for(const std::string& gpu, const AttentionShape& shape, bool backward) {
  require(why_not().empty(), "{}", why_not());
  Descriptor properties(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, isize(gpu.size()), gpu.data()).finalize();
  const Target target{.properties = properties.get()};
  const Plan plan = backward ? plan_backward(shape, target) : plan_forward(shape, target);
  return {.workspace = plan.workspace()};
}

}  // namespace switchyard::cudnn
