// OUT/metrics.jsonl: one JSON object a step, flushed as it is written, so that a run can be watched and plotted while
// it goes on. Names are those of the manual; what a step does not have (a digest, an evaluation) is left out of its
// line.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace switchyard {

struct LayerMetrics {
  std::int64_t layer = 0;
  double load_max_over_mean = 0;  // of the slots that the router asked for, the busiest expert against the mean
  double max_violation = 0;       // load_max_over_mean - 1 over the whole step
  double entropy = 0;             // of the mean router distribution, in nats
  double drop_rate = 0;
  std::int64_t dead_experts = 0;                       // that no slot of the step went to
  std::optional<double> rank_load_max_over_mean = {};  // of the ranks' work, where experts move or have copies
};

struct StepMetrics {
  std::int64_t step = 0;
  std::int64_t tokens = 0;  // trained on since the first step
  double loss = 0;          // mean cross-entropy a token, in nats
  double aux_loss = 0;
  double z_loss = 0;
  double lr = 0;
  double grad_norm = 0;
  double tokens_per_s = 0;
  double step_time_s = 0;
  // Of rows on CPUs: what they take between GPUs the host does not see.
  std::optional<double> exchange_s = 0;
  std::optional<double> exchange_hidden = 0;  // of exchange_s: the share in which this rank computed
  std::int64_t slots = 0;                     // tokens of the step x top_k, over all mixture layers
  std::int64_t slots_dropped = 0;             // slots = kept + dropped (law 4)
  std::int64_t slots_kept = 0;
  double drop_rate = 0;
  std::int64_t skipped = 0;  // steps so far whose update was left out
  std::string skip = {};     // why this step's was, "not finite" or "loss spike"; empty: it was not
  std::optional<std::int64_t> moved_experts = {};  // after this step
  std::optional<std::uint64_t> digest = {};
  std::vector<LayerMetrics> layers = {};
  std::optional<double> valid_loss = {};
  std::optional<double> valid_bits_per_byte = {};
};

// A save that has come to its end.
struct CheckpointMetrics {
  std::int64_t step = 0;  // that was saved
  std::int64_t bytes = 0;
  double stall_s = 0;  // for how long the step loop stood still
  double write_s = 0;  // from the snapshot's beginning to the commit
};

// Without the line's end. Numbers read back to the same doubles; NaN and the infinities, which JSON does not have, are
// null. The digest is a text of 16 hexadecimal digits, since JSON readers keep 53 bits of a number.
std::string to_json(const StepMetrics& metrics);

// The digest as people see it everywhere: 16 hexadecimal digits.
std::string digest_text(std::uint64_t digest);

class MetricsWriter {
 public:
  // Opens `file` for appending after `resumed_step` (0: from the start). Lines of later steps, which are about to be
  // written again, and a last line that was torn by the end of a process are dropped; the others stay as they are.
  // Throws Error(Runtime) where the file cannot be written.
  MetricsWriter(const std::filesystem::path& file, std::int64_t resumed_step);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  // Throws Error(Runtime), naming the file and the cause, where the line could not be written.
  void write(const StepMetrics& metrics);
  // Adds checkpoint_{step,bytes,stall_s,write_s} to the line that was written last, in place of those of an earlier
  // call. A line stands before its step's checkpoint does, so that a run resumed from it finds a line for each of its
  // steps; hence the addition.
  void amend(const CheckpointMetrics& metrics);

 private:
  void put(const std::string& line);  // in the place of whatever stands behind line_begin_

  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
  long line_begin_ = 0;
  std::string line_;  // as write() wrote it, without the line's end
};

}  // namespace switchyard
