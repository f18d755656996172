// switchyard generate: a trained model writes on.
#include "launch/generate.h"

#include "comm/exchange/lane.h"
#include "comm/group/environment.h"
#include "comm/transport/self.h"
#include "trainer/loop/generate.h"
#include "trainer/loop/layout.h"
#include "trainer/loop/restore.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

struct Arguments {
  std::string checkpoint;
  std::string prompt;
  std::string tokenizer;
  GenerateOptions options;
  bool json = false;
};

int run_generate(const Arguments& arguments) {
  if (launched_as().rank != 0) return 0;  // one process writes; it needs no MPI
  const CheckpointInfo checkpoint = locate_checkpoint(arguments.checkpoint);
  const Config config = config_here(checkpoint);
  const std::filesystem::path tokenizer_path =
      arguments.tokenizer.empty() ? tokenizer_of(checkpoint, config) : std::filesystem::path(arguments.tokenizer);
  const auto tokenizer = open_tokenizer(tokenizer_path);
  if (tokenizer->vocab() > config.model.vocab) {
    fail(ErrorKind::Usage, "the tokenizer has {} tokens, the checkpoint's model {}: they do not belong together",
         tokenizer->vocab(), config.model.vocab);
  }

  const Group alone(make_self_transport());
  Layout layout(alone, config);
  Model model(config, open_device(config.device, launched_as().local_rank), layout.lane());
  std::vector<StateTensor> weights;
  std::vector<HostView<float>> values;
  for (const auto& parameter : model.parameters().here()) {
    values.emplace_back(parameter->value().device(), parameter->value().f32(), parameter->size(), HostAccess::Write);
    weights.push_back({.name = parameter->name(),
                       .kind = StateKind::Weight,
                       .owner = parameter->owner(),
                       .shape = parameter->shape(),
                       .data = values.back().data()});
  }
  load_tensors(checkpoint.path, weights);
  for (HostView<float>& value : values) value.give_back();
  for (const auto& parameter : model.parameters().here()) parameter->touch();

  std::vector<std::int32_t> tokens;
  std::string written;
  const bool streams = !arguments.json;
  if (streams) {
    std::fwrite(arguments.prompt.data(), 1, arguments.prompt.size(), stdout);
    std::fflush(stdout);
  }
  generate(model, config.model, *tokenizer, arguments.prompt, arguments.options, [&](std::int32_t token) {
    tokens.push_back(token);
    // A character may take several tokens: print what has become whole.
    const std::string text = tokenizer->decode(tokens);
    if (streams && text.size() > written.size() && text.starts_with(written)) {
      std::fwrite(text.data() + written.size(), 1, text.size() - written.size(), stdout);
      std::fflush(stdout);
    }
    written = text;
  });
  if (streams) {
    std::fputc('\n', stdout);
  } else {
    const nlohmann::json object = {{"checkpoint", checkpoint.path.string()},
                                   {"step", checkpoint.state.step},
                                   {"prompt", arguments.prompt},
                                   {"text", written},
                                   {"tokens", tokens}};
    fmt::print("{}\n", object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  return 0;
}

}  // namespace

void add_generate(const Command& parent, Run& run) {
  const Command command = parent.add_command("generate", "Let a trained model go on from a prompt");
  auto arguments = std::make_shared<Arguments>();
  GenerateOptions& options = arguments->options;
  command.add_option("--checkpoint", arguments->checkpoint, "A run's folder, or a step folder in it",
                     {.required = true, .type = "DIR"});
  command.add_option("--prompt", arguments->prompt, "The text to go on from", {.type = "TEXT"});
  command.add_option("--tokens", options.tokens, "How many tokens at most",
                     {.accepted = accept::NotNegative(), .show_default = true});
  command.add_option("--temperature", options.sampler.temperature, "0: always the likeliest token",
                     {.accepted = accept::NotNegative(), .show_default = true});
  command.add_option("--top-k", options.sampler.top_k, "Draw from the K likeliest tokens (0: all)",
                     {.accepted = accept::NotNegative(), .show_default = true});
  command.add_option("--top-p", options.sampler.top_p, "Draw from the likeliest tokens that together have this share",
                     {.accepted = accept::Reals{0, 1}, .show_default = true});
  command.add_option("--seed", options.seed, "The same seed gives the same text", {.show_default = true});
  command.add_option("--tokenizer", arguments->tokenizer, "Another tokenizer than the run's", {.type = "PATH"});
  command.add_flag("--json", arguments->json, "Print one JSON object");
  command.does(run, [arguments] { return run_generate(*arguments); });
}

}  // namespace switchyard
