// A save's way: prepare (rank 0: folder, room), snapshot and write (each rank its files, in its thread), gather, commit
// (rank 0's thread: index, manifest, rename, retention). All ranks leave each of them together. The temporary folder
// goes with the rank that made it.
#include "trainer/checkpoint/saver.h"

#include "comm/base/log.h"
#include "comm/base/stopwatch.h"
#include "comm/group/agree.h"
#include "comm/group/fault_point.h"
#include "trainer/checkpoint/commit.h"
#include "trainer/checkpoint/index.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_writer.h"

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string_view>
#include <utility>

namespace switchyard {

using namespace checkpoint;

// A file of this rank among those of its kind, numbered over the ranks that have one.
struct CheckpointSaver::Shard {
  std::string name;
  std::vector<std::size_t> tensors;  // places among the attempt's
};

struct CheckpointSaver::Attempt {
  RunState state;
  SaveMode mode = SaveMode::Beside;
  std::vector<StateTensor> tensors;
  std::vector<Shard> shards;
  std::filesystem::path temporary;
  std::filesystem::path path;
  std::unique_ptr<TemporaryFolder> folder;  // rank 0's
  Clock::time_point begun = Clock::now();
  double stall_s = 0;
  bool committing = false;
  std::int64_t bytes = 0;

  // Written by the worker, read when it is idle.
  std::vector<FileRecord> files;
  std::vector<TensorRecord> records;
  std::exception_ptr failure;
  // Rank 0's, for the commit.
  std::vector<std::string> parts;
  std::vector<std::string> left_to_others;

  std::mutex mutex;
  std::condition_variable changed;
  bool in_use = true;  // the tensors are being read
  std::atomic<bool> abandoned{false};

  void release_tensors() {
    const std::lock_guard lock(mutex);
    in_use = false;
    changed.notify_all();
  }
  void fault_point(const char* phase) const { pass_fault_point(state.step, phase); }
};

namespace {

std::int64_t padded(std::int64_t elements) {
  constexpr std::int64_t cache_line = 16;  // elements
  return (elements + cache_line - 1) / cache_line * cache_line;
}

Bytes snapshot_bytes(std::span<const StateTensor> tensors) {
  std::int64_t elements = 0;
  for (const StateTensor& tensor : tensors) elements += tensor.write ? padded(tensor.elements()) : 0;
  return Bytes(elements * isize(sizeof(float)));
}

std::string path_of(const StateTensor& tensor) {
  return record_of(tensor, {}).path;
}

void check_tensors(std::span<const StateTensor> tensors) {
  std::set<std::string> paths;
  for (const StateTensor& tensor : tensors) {
    const std::string what = describe(tensor.name, tensor.kind, tensor.owner);
    require(tensor.shape.rank() >= 1 && tensor.shape.size() > 0, "save_checkpoint: {} has no elements", what);
    require(tensor.offset >= 0 && tensor.elements() <= tensor.shape.size() - tensor.offset,
            "save_checkpoint: a piece of {} goes beyond its end", what);
    require(paths.insert(path_of(tensor)).second, "{} is to be saved twice", what);
    require(tensor.data != nullptr || !tensor.write, "save_checkpoint: {} has no data", what);
  }
}

// What this rank holds and leaves to another: a tensor that nobody writes must not go unnoticed.
std::string list_left_to_others(std::span<const StateTensor> tensors) {
  std::string list;
  for (const StateTensor& tensor : tensors) {
    if (!tensor.write) list += dataset_path(tensor.name, tensor.kind) + '\n';
  }
  return list;
}

void check_written_once(const Manifest& manifest) {
  std::set<std::string_view> written;
  for (const TensorRecord& tensor : manifest.tensors) {
    require(written.insert(tensor.path).second, "{} was written by two ranks", tensor.path);
  }
}

void check_left_to_others(const Manifest& manifest, const std::vector<std::string>& left_to_others) {
  std::set<std::string> written;
  for (const TensorRecord& tensor : manifest.tensors) written.insert(dataset_path(tensor.name, tensor.kind));
  for (std::size_t rank = 0; rank < left_to_others.size(); ++rank) {
    std::string_view rest = left_to_others[rank];
    for (; !rest.empty(); rest.remove_prefix(rest.find('\n') + 1)) {
      const std::string path(rest.substr(0, rest.find('\n')));
      require(written.contains(path), "{} of rank {} was written by no rank", path, rank);
    }
  }
}

}  // namespace

CheckpointSaver::CheckpointSaver(const Group& world, SaveOptions options)
    : world_(world), options_(std::move(options)) {}

CheckpointSaver::~CheckpointSaver() {
  if (attempt_ != nullptr) attempt_->abandoned = true;
  worker_.wait();
}

// Numbers the files over the ranks, and sums what all of them will take.
std::vector<CheckpointSaver::Shard> CheckpointSaver::plan_shards(std::int64_t& bytes_of_all) const {
  constexpr const char* kinds[] = {"replicated", "experts"};
  std::vector<Shard> shards(2);
  for (std::size_t i = 0; i < attempt_->tensors.size(); ++i) {
    const StateTensor& tensor = attempt_->tensors[i];
    if (tensor.write) shards[tensor.owner.replicated() ? 0 : 1].tensors.push_back(i);
  }
  const std::size_t ranks = usize(world_.size());
  const std::size_t me = usize(world_.rank().value());
  std::vector<std::int64_t> table(2 * ranks + 1, 0);  // which ranks have a file of the kind; bytes
  for (std::size_t kind = 0; kind < 2; ++kind) {
    std::vector<TensorRecord> records;
    for (const std::size_t i : shards[kind].tensors) records.push_back(record_of(attempt_->tensors[i], {}));
    table[kind * ranks + me] = records.empty() ? 0 : 1;
    table.back() += records.empty() ? 0 : shard_bytes(records);
  }
  world_.sum(std::span<std::int64_t>(table));
  bytes_of_all = table.back();
  for (std::size_t kind = 0; kind < 2; ++kind) {
    int before = 0;
    int all = 0;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      if (rank == me) before = all;
      all += static_cast<int>(table[kind * ranks + rank]);
    }
    shards[kind].name = shard_file_name(kinds[kind], before, all);
  }
  std::erase_if(shards, [](const Shard& shard) { return shard.tensors.empty(); });
  return shards;
}

void CheckpointSaver::prepare(std::int64_t bytes_of_all) {
  Attempt& attempt = *attempt_;
  if (!world_.is_root()) return;
  attempt.folder = std::make_unique<TemporaryFolder>(options_.folder, attempt.state.step, attempt.state.run_id);
  require_free_space(attempt.temporary, bytes_of_all);
  attempt.fault_point("checkpoint: folder made");
}

std::optional<SaveOutcome> CheckpointSaver::begin(const RunState& state, std::span<const StateTensor> tensors,
                                                  SaveMode mode) {
  std::optional<SaveOutcome> last;
  double waited = 0;
  if (under_way()) {
    const Stopwatch stopwatch(waited);
    if (world_.is_root()) {
      log_info("step {} is to be saved and step {} is still being written: waiting for it", state.step,
               attempt_->state.step);
    }
    last = finish();
  }
  require_same(
      world_, "the checkpoint to write",
      fmt::format("{} of run {} at {} with config {}", step_folder_name(state.step), state.run_id,
                  options_.folder.string(), to_hex(hash64(state.config_toml.data(), isize(state.config_toml.size())))));
  collectively(world_, "checking what to save", [&] { check_tensors(tensors); });

  if (std::exchange(writers_changed_, false)) coverage_known_ = false;
  attempt_ = std::make_unique<Attempt>();
  Attempt& attempt = *attempt_;
  attempt.stall_s = waited;
  const Stopwatch stopwatch(attempt.stall_s);
  attempt.state = state;
  attempt.mode = mode;
  attempt.tensors.assign(tensors.begin(), tensors.end());
  attempt.path = options_.folder / step_folder_name(state.step);
  attempt.temporary = temporary_folder(options_.folder, state.step, state.run_id);
  std::int64_t bytes_of_all = 0;
  attempt.shards = plan_shards(bytes_of_all);
  try {
    collectively(world_, "preparing a checkpoint", [&] { prepare(bytes_of_all); });
  } catch (const CollectiveError&) {
    attempt.failure = std::current_exception();  // told by poll() or finish(), as any other
    attempt.in_use = false;
    return last;
  }
  worker_.wait();  // for reserve(), at most
  worker_.start([this] { write(); });
  return last;
}

void CheckpointSaver::reserve(std::span<const StateTensor> tensors) {
  const Bytes needed = snapshot_bytes(tensors);
  worker_.start([this, needed] {
    try {
      reserve_snapshot(needed);
      snapshot_.zero();  // touches every page
    } catch (const std::exception&) {
      snapshot_ = Buffer();  // the save that needs it tries again, and tells what is wrong
    }
  });
}

void CheckpointSaver::reserve_snapshot(Bytes needed) {
  if (needed <= snapshot_.size()) return;
  snapshot_ = Buffer();  // first: never two of them
  snapshot_ = Buffer(cpu_device(), needed);
}

void CheckpointSaver::take_snapshot() {
  Attempt& attempt = *attempt_;
  reserve_snapshot(snapshot_bytes(attempt.tensors));
  auto* memory = static_cast<float*>(snapshot_.data());
  for (StateTensor& tensor : attempt.tensors) {
    if (!tensor.write) continue;
    std::memcpy(memory, tensor.data, usize(tensor.elements()) * sizeof(float));
    tensor.data = std::exchange(memory, memory + padded(tensor.elements()));
  }
}

// In the worker's thread.
void CheckpointSaver::write() {
  Attempt& attempt = *attempt_;
  try {
    check_temporary_folder(attempt.temporary);
    if (attempt.mode == SaveMode::Beside) {
      take_snapshot();
      attempt.release_tensors();
    }
    attempt.fault_point("checkpoint: snapshot taken");
    for (const Shard& shard : attempt.shards) {
      std::vector<TensorRecord> records;
      std::map<std::string, const float*, std::less<>> data;
      for (const std::size_t i : shard.tensors) {
        records.push_back(record_of(attempt.tensors[i], shard.name));
        data[records.back().path] = attempt.tensors[i].data;
      }
      ShardWriter writer(attempt.temporary, shard.name, attempt.state, std::move(records));
      for (std::size_t i = 0; i < writer.tensors().size(); ++i) {
        if (attempt.abandoned) fail(ErrorKind::Runtime, "the save was given up");
        if (i == writer.tensors().size() / 2) attempt.fault_point("checkpoint: half a file written");
        writer.write(data.at(writer.tensors()[i].path), writer.tensors()[i].bytes());
      }
      attempt.fault_point("checkpoint: file written");
      attempt.files.push_back(writer.finish(world_.rank().value()));
      attempt.records.insert(attempt.records.end(), writer.tensors().begin(), writer.tensors().end());
      attempt.fault_point("checkpoint: file synced");
    }
  } catch (...) {
    attempt.failure = std::current_exception();
  }
  attempt.release_tensors();
}

// In rank 0's worker's thread.
void CheckpointSaver::commit() {
  Attempt& attempt = *attempt_;
  try {
    Manifest manifest{attempt.state, world_.size(), {}, {}};
    for (std::size_t i = 0; i < attempt.parts.size(); ++i) {
      parse_part(attempt.parts[i], fmt::format("the part of rank {}", i), manifest);
    }
    check_written_once(manifest);
    check_left_to_others(manifest, attempt.left_to_others);
    for (const FileRecord& file : manifest.files) attempt.bytes += file.bytes;
    manifest.files.push_back(write_index(attempt.temporary, manifest));
    attempt.fault_point("checkpoint: index written");
    const std::string text = to_text(manifest);
    // What could not be read must not be committed.
    parse_manifest(text, (attempt.temporary / manifest_name).string());
    replace_file(attempt.temporary / manifest_name, text);
    attempt.fault_point("checkpoint: manifest written");
    attempt.folder->publish([&](const char* phase) { attempt.fault_point(phase); });
    attempt.fault_point("checkpoint: committed");
  } catch (...) {
    attempt.failure = std::current_exception();
    return;
  }
  try {
    replace_file(options_.folder / latest_name, step_folder_name(attempt.state.step) + "\n");
    attempt.fault_point("checkpoint: latest replaced");
    retire_old(
        options_.folder,
        {.keep = options_.keep, .pin_every = options_.pin_every, .spared = {attempt.path, options_.resumed_from}});
    attempt.fault_point("checkpoint: old ones retired");
  } catch (const std::exception& error) {
    log_warning("{} was saved, but: {}", attempt.path.string(), error.what());
  }
}

void CheckpointSaver::before_update() {
  if (!under_way()) return;
  Attempt& attempt = *attempt_;
  const Stopwatch stopwatch(attempt.stall_s);
  std::unique_lock lock(attempt.mutex);
  attempt.changed.wait(lock, [&] { return !attempt.in_use; });
}

SaveOutcome CheckpointSaver::end(const std::string& failure) {
  SaveOutcome outcome{.step = attempt_->state.step,
                      .path = attempt_->path,
                      .failure = failure,
                      .stall_s = attempt_->stall_s,
                      .write_s = std::chrono::duration<double>(Clock::now() - attempt_->begun).count(),
                      .bytes = attempt_->bytes};
  attempt_.reset();
  return outcome;
}

std::optional<SaveOutcome> CheckpointSaver::poll() {
  if (!under_way()) return std::nullopt;
  Attempt& attempt = *attempt_;
  const auto rethrow = [&] {
    if (attempt.failure) std::rethrow_exception(attempt.failure);
  };
  try {
    std::optional<Stopwatch> stopwatch(attempt.stall_s);
    if (world_.any(worker_.busy())) return std::nullopt;
    if (attempt.committing) {
      collectively(world_, "committing a checkpoint", rethrow);
      world_.sum(std::span<std::int64_t>(&attempt.bytes, 1));  // rank 0 alone knows
      stopwatch.reset();
      return end({});
    }
    collectively(world_, "writing a checkpoint", rethrow);
    attempt.parts = world_.gather_to_root(part_to_text(attempt.files, attempt.records));
    // Which rank writes what does not change from save to save, unless that is said.
    if (!coverage_known_) attempt.left_to_others = world_.gather_to_root(list_left_to_others(attempt.tensors));
    coverage_known_ = true;
    attempt.committing = true;
    attempt.fault_point("checkpoint: gathered");
    if (world_.is_root()) worker_.start([this] { commit(); });
  } catch (const CollectiveError& error) {
    coverage_known_ = false;
    return end(error.what());
  }
  return std::nullopt;
}

std::optional<SaveOutcome> CheckpointSaver::finish() {
  while (under_way()) {
    {
      const Stopwatch stopwatch(attempt_->stall_s);
      worker_.wait();
    }
    if (auto outcome = poll()) return outcome;
  }
  return std::nullopt;
}

std::filesystem::path save_checkpoint(const Group& world, const std::filesystem::path& checkpoints,
                                      const RunState& state, std::span<const StateTensor> tensors, std::int64_t keep) {
  CheckpointSaver saver(world, {.folder = checkpoints, .keep = keep, .pin_every = 0, .resumed_from = {}});
  saver.begin(state, tensors, SaveMode::AndWait);
  const SaveOutcome outcome = *saver.finish();
  if (!outcome.failure.empty()) throw CollectiveError(ErrorKind::Runtime, outcome.failure);
  return outcome.path;
}

}  // namespace switchyard
