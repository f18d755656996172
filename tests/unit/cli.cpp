// The frame of the command line, with commands of its own.
#include "launch/cli.h"

#include "launch/commands.h"
#include "tests/support/catch.h"

#include <vector>

#include <fmt/ranges.h>

namespace switchyard {
namespace {

struct Outcome {
  std::string ran;    // "train 3"
  std::string fault;  // of a UsageError
};

Outcome given(std::vector<const char*> words) {
  Outcome outcome;
  CommandLine line("switchyard", "Words.", "1.2.3");
  Run run;
  int steps = 0;
  ConfigOptions config;
  const Command train = line.root().add_command("train", "Train");
  train.add_option("--steps", steps, "How many");
  train.does(run, [&] { return outcome.ran = fmt::format("train {}", steps), 0; });
  const Command bench = line.root().add_command("bench", "Measure");
  bench.require_command();
  const Command step = bench.add_command("step", "A step");
  add_config_options(step, config, ConfigFile::Option);
  step.does(run, [&] {
    return outcome.ran = fmt::format("step {} {}", config.file.string(), fmt::join(config.sets, " ")), 0;
  });
  words.insert(words.begin(), "/some/where/switchyard");
  try {
    if (line.parse(static_cast<int>(words.size()), words.data())) run();
  } catch (const UsageError& error) {
    outcome.fault = error.what();
  }
  return outcome;
}

}  // namespace

TEST_CASE("a command line that is right runs its command") {
  CHECK(given({"train", "--steps", "3"}).ran == "train 3");
  CHECK(given({"train", "--steps=3"}).ran == "train 3");
  CHECK(given({"bench", "step", "--config", "a.toml", "--set", "a.b=1", "--set", "c.d=2"}).ran ==
        "step a.toml a.b=1 c.d=2");
}

TEST_CASE("a command line that is wrong is told what to change") {
  CHECK(given({}).fault == "switchyard needs a command: train, bench\nTry switchyard --help");
  CHECK(given({"trian"}).fault ==
        "'trian' is no command of switchyard (did you mean 'train'?): there are train, bench\nTry switchyard --help");
  CHECK(given({"bench", "stpe"}).fault ==
        "'stpe' is no command of switchyard bench (did you mean 'step'?): there are step\nTry switchyard bench --help");
  CHECK(given({"bench"}).fault == "switchyard bench needs a command: step\nTry switchyard bench --help");
  CHECK(given({"train", "--stesp", "3"}).fault ==
        "switchyard train does not take '--stesp' (did you mean '--steps'?)\nTry switchyard train --help");
  CHECK(given({"train", "more"}).fault == "switchyard train does not take 'more'\nTry switchyard train --help");
  CHECK(given({"--steps", "train"}).fault.starts_with("switchyard does not take '--steps'"));
  CHECK_THAT(given({"train", "--steps", "x"}).fault,
             Catch::StartsWith("switchyard train: ") && Catch::Contains("--steps"));
  CHECK_THAT(given({"bench", "step"}).fault, Catch::StartsWith("switchyard bench step: --config is required"));
  CHECK(given({"bench", "step", "--config", "a", "--set", "a.b=1", "c.d=2"}).fault.find("does not take 'c.d=2'") !=
        std::string::npos);
}

TEST_CASE("help and version run nothing") {
  for (const auto& words : std::vector<std::vector<const char*>>{{"--help"},
                                                                 {"train", "--help"},
                                                                 {"bench", "--help"},
                                                                 {"bench", "step", "--help"},
                                                                 {"bench", "step", "--help-config"}}) {
    const Outcome outcome = given(words);
    CHECK(outcome.ran.empty());
    CHECK(outcome.fault.empty());
  }
}

}  // namespace switchyard
