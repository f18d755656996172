// switchyard bench checkpoint: a run's whole state to disk and back, beside what dd and cp reach with the same bytes on
// the same disk in the same minutes; what a save costs the steps it goes on beside; and reshard beside cp.
#include "launch/bench_checkpoint.h"

#include "comm/group/agree.h"
#include "comm/group/environment.h"
#include "launch/cli.h"
#include "layers/tensor/random.h"
#include "trainer/checkpoint/saver.h"
#include "trainer/loop/engine.h"
#include "trainer/monitor/memory.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct Arguments {
  ConfigOptions config;
  std::string folder = "runs";
  std::int64_t repeats = 5;
  bool json = false;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// The most memory that a process has had; 0 once it has ended.
std::int64_t peak_of(pid_t process) {
  std::ifstream status(fmt::format("/proc/{}/status", process));
  for (std::string word; status >> word;) {
    std::int64_t kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

// Runs a program to its end, with nothing on its outputs; gives its peak memory in bytes. (What wait4 tells would be
// that of this process, whose memory the child has until it starts the program.)
std::int64_t run_program(const std::vector<std::string>& command) {
  std::vector<char*> words;
  for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int refused = ::posix_spawnp(&child, words[0], &actions, nullptr, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (refused != 0) fail(ErrorKind::Runtime, "cannot start {}", command[0]);
  std::int64_t peak = 0;
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    peak = std::max(peak, peak_of(child));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (status != 0) fail(ErrorKind::Runtime, "{} failed", command[0]);
  return peak;
}

// The pages of a file that is on the disk leave memory, so that the next reader has to go there.
void forget(const fs::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  ::close(file);
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

class Bench {
 public:
  Bench(const Arguments& arguments, const Config& config, const Group& world)
      : config_(config),
        world_(world),
        layout_(world, config),
        engine_(config, layout_, open_device(config.device, launched_as().local_rank)),
        folder_(fs::absolute(arguments.folder) / "bench-checkpoint"),
        saver_(world, {.folder = folder_ / "checkpoints", .keep = 1, .pin_every = 0, .resumed_from = {}}) {
    collectively(world, "preparing the bench's folder", [&] {
      if (world.is_root()) fs::create_directories(folder_);
    });
    for (const StateTensor& tensor : engine_.state()) {
      if (!tensor.write) continue;
      my_bytes_ += tensor.elements() * isize(sizeof(float));
    }
    bytes_ = my_bytes_;
    world.sum(std::span<std::int64_t>(&bytes_, 1));
    state_.run_id = "bench";
    state_.config_toml = "# of no run\n";
    saver_.reserve(engine_.state());  // as a run does
    step({});
    step({});
  }
  ~Bench() {
    std::error_code error;
    if (world_.is_root()) fs::remove_all(folder_, error);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  // Everything once. Which of two goes first changes from round to round.
  void round(bool own_first) {
    const auto in_turn = [&](const std::function<void()>& own, const std::function<void()>& other) {
      (own_first ? own : other)();
      (own_first ? other : own)();
    };
    fs::path saved;
    in_turn([&] { saved = save_and_wait(); }, [&] { write_with_dd(); });
    in_turn([&] { read_back(saved); }, [&] { read_with_dd(saved); });
    save_beside();
    saved = folder_ / "checkpoints" / fmt::format("step-{:08}", saved_step_);
    in_turn([&] { reshard(saved); }, [&] { copy(saved); });
  }

  nlohmann::json result() const {
    nlohmann::json result = {{"ranks", world_.size()},
                             {"state_bytes", bytes_},
                             {"file_bytes", file_bytes_},
                             {"overhead", static_cast<double>(file_bytes_) / static_cast<double>(bytes_) - 1},
                             {"reshard_peak_bytes", reshard_peak_},
                             {"largest_expert_bytes", largest_expert_bytes()}};
    for (const auto& [name, values] : figures_) {
      result[name] = *std::min_element(values.begin(), values.end());
      result["rounds"][name] = values;
    }
    const auto ratio = [&](const char* name, const char* of) {
      return result.at(name).get<double>() / result.at(of).get<double>();
    };
    result["write_of_dd"] = ratio("dd_write_s", "save_s");
    result["read_of_plain"] = ratio("plain_read_s", "load_s");
    result["reshard_of_cp"] = ratio("cp_s", "reshard_s");
    result["async_cost_s"] = std::max(0.0, median(figures_.at("async_cost_s")));  // a difference: noise has both signs
    result["async_of_sync"] = ratio("async_cost_s", "save_s");
    result["async_stall_of_sync"] = ratio("async_stall_s", "save_s");
    return result;
  }

 private:
  // The time from when all ranks begin to when all are done.
  double together(const std::function<void()>& work) {
    return collective_work([&] { collectively(world_, "measuring", work); });
  }
  // The same of work that is collective itself.
  double collective_work(const std::function<void()>& work) {
    world_.barrier();
    const auto start = Clock::now();
    work();
    world_.barrier();
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  void write_with_dd() {
    const fs::path file = folder_ / fmt::format("dd-{}", world_.rank().value());
    note("dd_write_s", together([&] {
           run_program({"dd", "if=/dev/zero", "of=" + file.string(), "bs=1M", "iflag=count_bytes",
                        fmt::format("count={}", my_bytes_), "conv=fsync"});
         }));
    together([&] { fs::remove(file); });
  }
  void read_with_dd(const fs::path& saved) {
    const std::vector<fs::path> files = forgotten_files(saved);
    note("plain_read_s", together([&] {
           for (std::size_t i = usize(world_.rank().value()); i < files.size(); i += usize(world_.size())) {
             run_program({"dd", "if=" + files[i].string(), "of=/dev/null", "bs=1M"});
           }
         }));
  }
  // The files of a checkpoint, none of which is in memory any more.
  std::vector<fs::path> forgotten_files(const fs::path& saved) const {
    const std::vector<fs::path> files = files_in(saved);
    for (const fs::path& file : files) forget(file);
    return files;
  }
  void note(const char* name, double seconds) { figures_[name].push_back(seconds); }

  double step(const StepHooks& hooks) {
    const Random random(1, "bench tokens");
    const auto read = [&](std::int64_t sample, std::span<std::int32_t> tokens) {
      const auto first = static_cast<std::uint64_t>(sample) * tokens.size();
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = static_cast<std::int32_t>(random.bits(first + i) % static_cast<std::uint64_t>(config_.model.vocab));
      }
    };
    world_.barrier();
    const auto start = Clock::now();
    engine_.step(state_.step, state_.step, state_.step * config_.train.global_batch, read, hooks);
    ++state_.step;
    world_.barrier();
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  static void require_saved(const std::optional<SaveOutcome>& outcome) {
    require(outcome && outcome->failure.empty(), "{}", outcome ? outcome->failure : "nothing was saved");
  }

  fs::path save_and_wait() {
    std::optional<SaveOutcome> outcome;
    note("save_s", collective_work([&] {
           saver_.begin(state_, engine_.state(), SaveMode::AndWait);
           outcome = saver_.finish();
         }));
    require_saved(outcome);
    saved_step_ = outcome->step;
    file_bytes_ = 0;
    for (const fs::path& file : files_in(outcome->path)) file_bytes_ += static_cast<std::int64_t>(fs::file_size(file));
    step({});  // so that the next one is another step's
    return outcome->path;
  }

  void read_back(const fs::path& saved) {
    const std::vector<StateTensor> tensors = engine_.state();
    forgotten_files(saved);
    note("load_s", collective_work([&] { load_checkpoint(world_, saved, tensors); }));
    engine_.touch();
  }

  // What steps with a save beside them take more than as many without one, before and after.
  void save_beside() {
    const StepHooks hooks{.accept = {}, .before_update = [&] { saver_.before_update(); }};
    double with = 0;
    std::optional<SaveOutcome> outcome;
    std::int64_t steps = 0;
    const auto without = [&](std::int64_t count) {
      double sum = 0;
      for (std::int64_t i = 0; i < count; ++i) sum += step({});
      return sum;
    };
    const double before = without(4);
    with = collective_work([&] {
      saver_.begin(state_, engine_.state(), SaveMode::Beside);
      for (; !outcome; ++steps) {
        step(hooks);
        outcome = saver_.poll();
      }
    });
    const double after = without(4);
    require_saved(outcome);
    saved_step_ = outcome->step;
    note("async_cost_s", with - static_cast<double>(steps) * (before + after) / 8);
    note("async_stall_s", outcome->stall_s);
    note("async_write_s", outcome->write_s);
  }

  std::int64_t largest_expert_bytes() const {
    std::map<std::pair<int, int>, std::int64_t> bytes;
    for (const auto& parameter : engine_parameters()) {
      const Owner owner = parameter->owner();
      if (!owner.replicated()) bytes[{owner.layer, owner.expert}] += 3 * parameter->size() * isize(sizeof(float));
    }
    std::int64_t largest = 0;
    for (const auto& [expert, size] : bytes) largest = std::max(largest, size);
    return largest;
  }
  const std::vector<std::unique_ptr<Parameter>>& engine_parameters() const {
    return engine_.model().parameters().here();
  }

  // This program and cp, each in a process of its own; rank 0 alone, since that is how they are used.
  void alone(const char* name, const fs::path& result, const std::function<void()>& work) {
    note(name, together([&] {
           if (world_.is_root()) work();
         }));
    together([&] {
      if (world_.is_root()) fs::remove_all(result);
    });
  }
  void copy(const fs::path& saved) {
    const fs::path to = folder_ / "copy";
    alone("cp_s", to, [&] {
      run_program({"sh", "-c", fmt::format("cp -r '{0}' '{1}' && sync -f '{1}'", saved.string(), to.string())});
    });
  }
  void reshard(const fs::path& saved) {
    const fs::path to = folder_ / "resharded";
    const std::string program = fs::read_symlink("/proc/self/exe").string();
    alone("reshard_s", to, [&] {
      const std::int64_t peak =
          run_program({program, "checkpoint", "reshard", saved.string(), to.string(), "--per-expert"});
      reshard_peak_ = std::max(reshard_peak_, peak);
    });
  }

  Config config_;
  const Group& world_;
  Layout layout_;
  mutable Engine engine_;
  fs::path folder_;
  RunState state_;
  CheckpointSaver saver_;
  std::int64_t saved_step_ = 0;
  std::int64_t my_bytes_ = 0;
  std::int64_t bytes_ = 0;
  std::int64_t file_bytes_ = 0;
  std::int64_t reshard_peak_ = 0;
  std::map<std::string, std::vector<double>> figures_;
};

struct Row {
  const char* what;
  const char* own;     // seconds
  const char* beside;  // seconds of what it is compared with
  const char* ratio;
  const char* wanted;
};
constexpr Row rows[] = {
    {"write, against dd conv=fsync", "save_s", "dd_write_s", "write_of_dd", "0.80 or more"},
    {"read, against dd of=/dev/null", "load_s", "plain_read_s", "read_of_plain", "0.80 or more"},
    {"saving beside the steps: what it costs them, against a save that is waited for", "async_cost_s", "save_s",
     "async_of_sync", "below 0.05"},
    {"  of that, the step loop standing still", "async_stall_s", "save_s", "async_stall_of_sync", ""},
    {"reshard --per-expert, against cp -r and sync", "reshard_s", "cp_s", "reshard_of_cp", "0.60 or more"},
};

int run_bench_checkpoint(const Arguments& arguments) {
  Config config = load_config(arguments.config, DataFiles::NotNeeded);
  if (config.model.vocab == 0) config.model.vocab = 4096;  // there is no tokenizer to ask
  Environment environment;
  const Group& world = environment.world();
  nlohmann::json result;
  {
    Bench bench(arguments, config, world);
    for (std::int64_t i = 0; i < arguments.repeats; ++i) bench.round(i % 2 == 0);
    result = bench.result();
  }
  if (!world.is_root()) return 0;
  const auto bytes = [&](const char* key) { return size_text(result.at(key).get<std::int64_t>()); };
  fmt::print("{} rank{}, a state of {} in files of {} ({:+.2f} %); the best of {} rounds, of the cost the median\n\n",
             world.size(), world.size() == 1 ? "" : "s", bytes("state_bytes"), bytes("file_bytes"),
             100 * result.at("overhead").get<double>(), arguments.repeats);
  fmt::print("{:<80} {:>9} {:>9}   {:>5}   {}\n", "", "own", "other", "ratio", "wanted");
  for (const Row& row : rows) {
    fmt::print("{:<80} {:>7.3f} s {:>7.3f} s   {:>5.3f}   {}\n", row.what, result.at(row.own).get<double>(),
               result.at(row.beside).get<double>(), result.at(row.ratio).get<double>(), row.wanted);
  }
  fmt::print("reshard's peak memory {}; an expert with its moments is {}\n", bytes("reshard_peak_bytes"),
             bytes("largest_expert_bytes"));
  if (arguments.json) fmt::print("{}\n", result.dump());
  return 0;
}

}  // namespace

void add_bench_checkpoint(const Command& parent, Run& run) {
  const Command command = parent.add_command("checkpoint", "Saving, loading and resharding, beside dd and cp");
  auto arguments = std::make_shared<Arguments>();
  add_config_options(command, arguments->config, ConfigFile::Option);
  command.add_option("--folder", arguments->folder, "Where to write: on the disk that is to be measured",
                     {.show_default = true});
  command.add_option("--repeats", arguments->repeats,
                     "Rounds; the best times of each count, since shared disks stall at random",
                     {.accepted = accept::Positive(), .show_default = true});
  command.add_flag("--json", arguments->json, "End with one line that holds one JSON object");
  command.does(run, [arguments] { return run_bench_checkpoint(*arguments); });
}

}  // namespace switchyard
