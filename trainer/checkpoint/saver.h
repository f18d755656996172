// Saving beside the training: the step loop hands over what is to be saved and goes on; a thread of each rank takes a
// snapshot of it in memory and writes that. Only the next step's update waits, and only while the snapshot is being
// taken.
//
// A save is under way from begin() on; poll() at each step's boundary carries it on as soon as all ranks have written,
// and gives how it ended. All ranks make the same calls at the same boundaries, and learn the same outcome.
#pragma once

#include "comm/device/device.h"
#include "trainer/checkpoint/checkpoint.h"
#include "trainer/checkpoint/worker.h"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

struct SaveOptions {
  std::filesystem::path folder;        // checkpoints/
  std::int64_t keep = 0;               // newest ones; 0: all
  std::int64_t pin_every = 0;          // those at multiples of so many steps stay for ever; 0: none
  std::filesystem::path resumed_from;  // stays too; may be empty
};

struct SaveOutcome {
  std::int64_t step = 0;
  std::filesystem::path path;
  std::string failure;     // empty: it is saved. The same on all ranks
  double stall_s = 0;      // for how long this rank's step loop stood still
  double write_s = 0;      // from begin() to the commit, as this rank saw it
  std::int64_t bytes = 0;  // written by all ranks
};

enum class SaveMode {
  Beside,   // from a snapshot, while training goes on
  AndWait,  // from where the tensors lie; nothing may change them before finish() returns
};

class CheckpointSaver {
 public:
  CheckpointSaver(const Group& world, SaveOptions options);
  ~CheckpointSaver();  // a save that is still under way is dropped

  // Not collective: takes the memory of snapshots of such tensors in the worker's thread, so that the first save finds
  // it ready. Only before the first begin().
  void reserve(std::span<const StateTensor> tensors);
  // Collective. Where the last save is not done, waits for it first (back-pressure); its outcome is given. The tensors
  // are read by another thread until before_update() (Beside) or finish() (AndWait) has returned.
  std::optional<SaveOutcome> begin(const RunState& state, std::span<const StateTensor> tensors, SaveMode mode);
  // Not collective: returns when the tensors may be written to.
  void before_update();
  // Not collective, but told on all ranks: from the next begin() on other ranks may have, and write, other tensors.
  void writers_changed() { writers_changed_ = true; }
  // Collective. The outcome of the save under way, if it has come to its end.
  std::optional<SaveOutcome> poll();
  // Collective: waits for it. Nothing where none is under way.
  std::optional<SaveOutcome> finish();

  bool under_way() const { return attempt_ != nullptr; }

 private:
  struct Attempt;
  struct Shard;
  using Clock = std::chrono::steady_clock;

  std::vector<Shard> plan_shards(std::int64_t& bytes_of_all) const;
  void prepare(std::int64_t bytes_of_all);
  void reserve_snapshot(Bytes needed);
  void take_snapshot();
  void write();
  void commit();
  SaveOutcome end(const std::string& failure);

  const Group& world_;
  SaveOptions options_;
  Buffer snapshot_;  // kept from save to save: a page is dear the first time
  bool coverage_known_ = false;
  bool writers_changed_ = false;
  std::unique_ptr<Attempt> attempt_;
  checkpoint::Worker worker_;  // last: its job uses the others
};

}  // namespace switchyard
