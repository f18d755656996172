#include "launch/prepare.h"

#include "comm/group/environment.h"
#include "data/prepare/prepare.h"

#include <chrono>
#include <cstdio>
#include <memory>
#include <string_view>
#include <utility>

#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace switchyard {
namespace {

// On a terminal a line that rewrites itself; in a log one line a phase.
class ProgressLine {
 public:
  explicit ProgressLine(bool wanted) : wanted_(wanted), terminal_(::isatty(STDERR_FILENO) == 1) {}
  ~ProgressLine() { end_line(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const PrepareProgress& now) {
    if (!wanted_) return;
    const bool new_phase = phase_ != now.phase;
    if (new_phase) {
      end_line();
      phase_ = now.phase;
      if (!terminal_) fmt::print(stderr, "{} ({:.1f} MB)\n", now.phase, megabytes(now.total));
    }
    const auto time = Clock::now();
    if (!terminal_ || (!new_phase && now.done < now.total && time - drawn_ < std::chrono::milliseconds(100))) return;
    drawn_ = time;
    open_ = true;
    if (now.done == 0) {
      fmt::print(stderr, "\r\033[K{} ...", now.phase);
    } else {
      fmt::print(stderr, "\r\033[K{} {:3.0f} %  {:.1f} of {:.1f} MB", now.phase,
                 100 * megabytes(now.done) / megabytes(now.total), megabytes(now.done), megabytes(now.total));
    }
    std::fflush(stderr);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double megabytes(std::int64_t bytes) { return static_cast<double>(bytes) / 1e6; }
  void end_line() {
    if (std::exchange(open_, false)) fmt::print(stderr, "\n");
  }

  bool wanted_, terminal_, open_ = false;
  std::string_view phase_;
  Clock::time_point drawn_;
};

double bytes_per_token(const CorpusMeta& meta) {
  return static_cast<double>(meta.train.bytes + meta.valid.bytes) /
         static_cast<double>(meta.train.tokens + meta.valid.tokens);
}

nlohmann::ordered_json to_json(const SplitMeta& split) {
  return {{"bytes", split.bytes}, {"tokens", split.tokens}, {"spans", split.spans}, {"shards", split.shards}};
}

void print_json(const PrepareOptions& options, const CorpusMeta& meta, double seconds) {
  const nlohmann::ordered_json object = {{"out", options.out.string()},
                                         {"tokenizer", meta.tokenizer},
                                         {"vocab", meta.vocab},
                                         {"documents", meta.documents},
                                         {"bytes", meta.train.bytes + meta.valid.bytes},
                                         {"tokens", meta.train.tokens + meta.valid.tokens},
                                         {"bytes_per_token", bytes_per_token(meta)},
                                         {"train", to_json(meta.train)},
                                         {"valid", to_json(meta.valid)},
                                         {"seconds", seconds}};
  fmt::print("{}\n", object.dump());
}

void print_table(const PrepareOptions& options, const CorpusMeta& meta, double seconds) {
  const auto row = [](const char* name, const SplitMeta& split) {
    fmt::print("  {:<6} {:>14} bytes  {:>13} tokens  {:>4} shards\n", name, split.bytes, split.tokens, split.shards);
  };
  fmt::print("{}: {} documents, tokenizer {} with {} tokens, {:.2f} bytes a token, {:.1f} s\n", options.out.string(),
             meta.documents, meta.tokenizer, meta.vocab, bytes_per_token(meta), seconds);
  row("train", meta.train);
  row("valid", meta.valid);
}

int run_prepare(const PrepareOptions& options, bool json) {
  if (launched_as().rank != 0) return 0;  // several would write into one folder; one does the work
  const auto begin = std::chrono::steady_clock::now();
  CorpusMeta meta;
  {
    ProgressLine line(!json || ::isatty(STDERR_FILENO) == 1);
    meta = prepare(options, [&](const PrepareProgress& now) { line.show(now); });
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (options.vocab && meta.vocab < *options.vocab) {
    fmt::print(stderr, "note: the text holds {} pieces worth having, so the vocabulary is {} and not {}\n", meta.vocab,
               meta.vocab, *options.vocab);
  }
  if (meta.valid.bytes == 0) fmt::print(stderr, "note: no text is held out for validation\n");
  json ? print_json(options, meta, seconds) : print_table(options, meta, seconds);
  return 0;
}

}  // namespace

void add_prepare(const Command& parent, Run& run) {
  struct Arguments {
    PrepareOptions options;
    bool json = false;
  };
  const auto arguments = std::make_shared<Arguments>();
  PrepareOptions& options = arguments->options;
  const Command command = parent.add_command("prepare", "Turn text files into a folder of token shards to train on");
  command.add_option("--input", options.inputs, "Text files, JSONL files ({\"text\": ...} a line), or folders of them",
                     {.required = true});
  command.add_option("--tokenizer", options.tokenizer, "bytes, or sentencepiece (BPE, trained on the text)",
                     {.show_default = true});
  command.add_option("--vocab", options.vocab, "Tokens of the sentencepiece vocabulary (default 4096)");
  command.add_option("--out", options.out, "Folder to write", {.required = true});
  command.add_option("--valid-fraction", options.valid_fraction,
                     "Part of the text held out for validation (default 0.02, but no more than about 1 MiB)");
  command.add_option("--seed", options.seed, "Of the choice of the held-out text", {.show_default = true});
  command.add_flag("--force", options.force, "Replace what an earlier prepare wrote to --out");
  command.add_flag("--json", arguments->json, "Print the report as one JSON object");
  command.does(run, [arguments] { return run_prepare(arguments->options, arguments->json); });
}

}  // namespace switchyard
