// switchyard eval: loss and bits per byte of a checkpoint on held-out text.
#include "launch/eval.h"

#include "comm/group/agree.h"
#include "comm/group/environment.h"
#include "trainer/loop/evaluation.h"
#include "trainer/loop/restore.h"

#include <cmath>
#include <memory>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

struct Arguments {
  std::string checkpoint;
  std::string data;
  std::int64_t sequences = 0;
  bool json = false;
};

int run_eval(const Arguments& arguments) {
  Environment environment;
  const Group& world = environment.world();
  const CheckpointInfo checkpoint = locate_checkpoint(world, arguments.checkpoint);
  const Config config = config_here(checkpoint);
  std::optional<ValidSplit> split;
  collectively(world, "opening the data", [&] {
    const std::string& data = arguments.data.empty() ? config.data.valid : arguments.data;
    if (data.empty()) {
      fail(ErrorKind::Usage, "the run had no held-out split: say what to evaluate on with --data");
    }
    split.emplace(data, config.model.seq_len);
    if (split->vocab() > config.model.vocab) {
      fail(ErrorKind::Usage, "the data has {} token ids, the checkpoint's model {}: they do not belong together",
           split->vocab(), config.model.vocab);
    }
  });
  Layout layout(world, config);
  Engine engine(config, layout, open_device(config.device, launched_as().local_rank));
  load_state(engine, world, checkpoint, LoadWhat::Weights);
  const Evaluation result = evaluate(engine, *split, arguments.sequences);
  if (!world.is_root()) return 0;
  if (arguments.json) {
    nlohmann::json object = {
        {"checkpoint", checkpoint.path.string()}, {"step", checkpoint.state.step}, {"valid_loss", result.loss},
        {"perplexity", std::exp(result.loss)},    {"sequences", result.sequences}, {"tokens", result.tokens}};
    if (result.bits_per_byte) object["valid_bits_per_byte"] = *result.bits_per_byte;
    fmt::print("{}\n", object.dump());
    return 0;
  }
  fmt::print("step {}: loss {:.4f} nats a token, perplexity {:.2f}", checkpoint.state.step, result.loss,
             std::exp(result.loss));
  if (result.bits_per_byte) fmt::print(", {:.4f} bits per byte", *result.bits_per_byte);
  fmt::print(" ({} sequences, {} tokens)\n", result.sequences, result.tokens);
  return 0;
}

}  // namespace

void add_eval(const Command& parent, Run& run) {
  const Command command = parent.add_command("eval", "Loss and bits per byte of a checkpoint on held-out text");
  auto arguments = std::make_shared<Arguments>();
  command.add_option("--checkpoint", arguments->checkpoint, "A run's folder, or a step folder in it",
                     {.required = true, .type = "DIR"});
  command.add_option("--data", arguments->data, "Another prepared folder or token shard than the run's held-out split",
                     {.type = "PATH"});
  command.add_option("--sequences", arguments->sequences, "Only the first N sequences (0: all)",
                     {.accepted = accept::NotNegative(), .show_default = true});
  command.add_flag("--json", arguments->json, "Print one JSON object");
  command.does(run, [arguments] { return run_eval(*arguments); });
}

}  // namespace switchyard
