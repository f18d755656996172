// Stands in for attention_cudnn.cpp in a program without cuDNN, or without CUDA.
#include "layers/attention/attention_cudnn.h"

namespace switchyard::cudnn {

const std::string& why_not() {
  static const std::string why = "this program was built without cuDNN";
  return why;
}

bool fits(const AttentionShape&) {
  return false;
}

bool takes(const AttentionShape&, const Tensor&) {
  return false;
}

bool attention(const AttentionShape&, const Tensor&, const Tensor&, const Tensor&, Tensor, Tensor) {
  return false;
}

bool attention_backward(const AttentionShape&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                        const Tensor&, const Tensor&, Arena&, Tensor, Tensor, Tensor) {
  return false;
}

Bytes backward_memory(const AttentionShape&) {
  return Bytes(0);
}

PlanFacts plan_for(const std::string&, const AttentionShape&, bool) {
  fail(ErrorKind::Runtime, "{}", why_not());
}

}  // namespace switchyard::cudnn
