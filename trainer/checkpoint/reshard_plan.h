// Which tensor goes into which file when a checkpoint is rewritten: a pure function of its manifest.
//
// An expert is never cut: its weights and their moments lie in one file. Pieces that ZeRO-1 left are put together
// again. The plan depends on what the checkpoint holds and not on how it was laid out, so any chain of reshards ends
// with the files that one alone would have written.
#pragma once

#include "trainer/checkpoint/manifest.h"

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::checkpoint {

struct ReshardOptions {
  enum class By {
    Source,          // experts stay with those they lie with now
    Ranks,           // as a run of `count` ranks in one expert group would own them
    ExpertsPerFile,  // `count` consecutive ones, counted through all layers
  };
  By by = By::Source;
  std::int64_t count = 0;
  bool drop_optimizer = false;
};

struct PlannedTensor {
  TensorRecord target;                       // whole; its offset and hash come with the writing
  std::vector<const TensorRecord*> sources;  // one, or the pieces in their order
};

struct PlannedFile {
  std::string name;
  int rank = 0;  // that would have written it
  std::vector<PlannedTensor> tensors;

  std::int64_t bytes() const;  // of the tensors
};

struct ReshardPlan {
  std::int64_t ranks = 1;
  std::vector<PlannedFile> files;

  std::int64_t bytes() const;
};

// The manifest must outlive the plan. Throws Error(Usage) where the options ask for what cannot be.
ReshardPlan plan_reshard(const Manifest& manifest, const ReshardOptions& options);

// That nothing is lost or doubled: every tensor of the manifest that is to stay is in the plan once, with all of its
// elements. Throws Error(Runtime), naming the first that is not.
void check_plan(const ReshardPlan& plan, const Manifest& manifest, const ReshardOptions& options);

}  // namespace switchyard::checkpoint
