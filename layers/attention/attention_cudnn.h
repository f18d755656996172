// Attention by NVIDIA's cuDNN, in bf16, where the library is there when the program runs and takes the shape. No type
// of cuDNN or CUDA is seen here: attention_cudnn.cpp, or attention_cudnn_absent.cpp in a program without it.
#pragma once

#include "layers/attention/attention.h"

#include <cstdint>
#include <string>

namespace switchyard::cudnn {

// Why there is no cuDNN here; empty where there is. Loads the library, and asks for no GPU.
const std::string& why_not();

// Whether a shape is one that cuDNN may take: more than one position, heads of whole 16 bytes up to 256 wide, values
// not wider than keys.
bool fits(const AttentionShape& shape);

// Whether attention of this shape, with q's type on q's device, is cuDNN's. Asked for the first time it makes the
// plans, which no captured work may do, and has cuDNN's results compared with ours. Where they disagree, where cuDNN
// refuses and where it has failed, one warning says so, and the answer is no from then on.
bool takes(const AttentionShape& shape, const Tensor& q);

// After takes(). False: cuDNN failed, and the results are not there.
bool attention(const AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v, Tensor out,
               Tensor log_sum_exp);
bool attention_backward(const AttentionShape& shape, const Tensor& dout, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Tensor& out, const Tensor& log_sum_exp, Arena& scratch, Tensor dq,
                        Tensor dk, Tensor dv);

// Bytes that backward takes beside the tensors: in the scratch arena, and of the device's workspace.
Bytes backward_memory(const AttentionShape& shape);

// What cuDNN would run on a GPU that is described in cuDNN's own words (CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION) and
// need not be there: for tests. Throws Error(Runtime) with cuDNN's words where it refuses.
struct PlanFacts {
  std::int64_t workspace = 0;  // bytes
};
PlanFacts plan_for(const std::string& gpu, const AttentionShape& shape, bool backward);

}  // namespace switchyard::cudnn
