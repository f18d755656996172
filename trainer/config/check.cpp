#include "trainer/config/check.h"

#include "comm/device/device.h"
#include "layers/attention/attention_cudnn.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <utility>

#include <fmt/core.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// if (check.sound({the keys that meet}) && they do not fit) check.tell(why).
class Check {
 public:
  Check(const KeyPlaces& places, std::vector<ConfigFault>& faults) : places_(places), faults_(faults) {}

  bool sound(std::initializer_list<std::string_view> paths) {
    const auto order = [&](std::string_view a, std::string_view b) { return places_.order(a) < places_.order(b); };
    // A fault points at the key that was said last: that is the line which the user most likely has in mind.
    blamed_ = *std::max_element(paths.begin(), paths.end(), order);
    return std::all_of(paths.begin(), paths.end(), places_.sound);
  }

  template <class... Args>
  void tell(fmt::format_string<Args...> format, Args&&... args) {
    faults_.push_back({places_.where(blamed_), fmt::format(format, std::forward<Args>(args)...)});
  }

 private:
  const KeyPlaces& places_;
  std::vector<ConfigFault>& faults_;
  std::string_view blamed_;
};

void check_model(const ModelConfig& model, Check& check) {
  if (check.sound({"model.d_model", "model.heads"})) {
    if (model.d_model % model.heads != 0) {
      check.tell("model.d_model = {} is not a multiple of model.heads = {}", model.d_model, model.heads);
    } else if (model.d_model / model.heads % 2 != 0) {
      check.tell(
          "a head is {} wide (model.d_model = {} over model.heads = {}), but rotary positions turn pairs of numbers "
          "and want an even width",
          model.d_model / model.heads, model.d_model, model.heads);
    }
  }
  if (check.sound({"model.heads", "model.kv_heads"}) && model.kv_heads != 0 && model.heads % model.kv_heads != 0) {
    check.tell("model.heads = {} is not a multiple of model.kv_heads = {}", model.heads, model.kv_heads);
  }
}

void check_moe(const Config& config, int ranks, Check& check) {
  const MoeConfig& moe = config.moe;
  const std::int64_t expert = config.parallel.expert;
  if (check.sound({"moe.every", "model.layers"}) && moe.every > config.model.layers) {
    check.tell("moe.every = {} with model.layers = {} leaves no mixture layer; a dense model is moe.every = 0",
               moe.every, config.model.layers);
  }
  if (check.sound({"moe.experts", "moe.top_k"}) && moe.top_k > moe.experts) {
    check.tell("moe.top_k = {} experts a token, but there are only moe.experts = {}", moe.top_k, moe.experts);
  }
  // One weight divided by itself: a constant, through which the loss does not reach the router.
  if (check.sound({"moe.top_k", "moe.renormalise"}) && moe.every > 0 && moe.top_k == 1 && moe.renormalise) {
    check.tell(
        "moe.renormalise = true with moe.top_k = 1 makes every gate weight 1, so the router would learn nothing from "
        "the "
        "loss: leave it out or set it to false, or take more experts a token");
  }
  if (check.sound({"moe.experts", "parallel.expert"}) && expert > moe.experts) {
    check.tell("parallel.expert = {} ranks would share moe.experts = {}: at most one rank an expert", expert,
               moe.experts);
  }
  if (check.sound({"parallel.expert"}) && ranks > 0 && expert > ranks) {
    check.tell("parallel.expert = {} ranks, but the run has {}: start {} ranks or lower it (0: as many as there are)",
               expert, ranks, expert);
  }
}

void check_train(const TrainConfig& train, Check& check) {
  if (check.sound({"train.global_batch", "train.micro_batch"}) && train.global_batch % train.micro_batch != 0) {
    check.tell("train.global_batch = {} sequences is not a multiple of train.micro_batch = {}", train.global_batch,
               train.micro_batch);
  }
  if (check.sound({"train.steps", "train.warmup_steps"}) && train.warmup_steps > train.steps) {
    check.tell("train.warmup_steps = {} is more than train.steps = {}: the rate would never reach train.lr",
               train.warmup_steps, train.steps);
  }
}

// Sizes as doubles: far beyond these limits they still compare as they should, where whole numbers would overflow.
double real(std::int64_t size) {
  return static_cast<double>(size);
}

// Rows are counted in 32 bits, bytes and tokens in 64, with room for a few factors more.
constexpr double most_rows = 0x1p31;
constexpr double most_numbers = 0x1p44;  // of the weights, or of what one micro-batch makes of one layer
constexpr double most_tokens = 0x1p62;

void check_sizes(const Config& config, Check& check) {
  const ModelConfig& model = config.model;
  const MoeConfig& moe = config.moe;
  const TrainConfig& train = config.train;
  const double inner = model.d_ff > 0 ? real(model.d_ff) : real(model.d_model) * 8 / 3;
  const double rows = real(train.micro_batch) * real(model.seq_len) * real(moe.top_k);
  if (check.sound({"train.micro_batch", "model.seq_len", "moe.top_k"}) && rows >= most_rows) {
    check.tell(
        "train.micro_batch = {} sequences of model.seq_len = {} tokens, each for moe.top_k = {} experts, are {:.0f} "
        "rows "
        "in one micro-batch; below {:.0f} is possible",
        train.micro_batch, model.seq_len, moe.top_k, rows, most_rows);
  }
  const double widest = std::max({real(model.vocab), real(model.d_model), inner, real(moe.experts)});
  if (check.sound({"train.micro_batch", "model.seq_len", "moe.top_k", "model.vocab", "model.d_model", "model.d_ff",
                   "moe.experts"}) &&
      rows < most_rows && rows * widest > most_numbers) {
    check.tell(
        "the widest matrix of a micro-batch would hold {:.3g} numbers ({:.0f} rows of {:.0f}); {:.3g} is the most: "
        "lower "
        "train.micro_batch, model.seq_len or the width",
        rows * widest, rows, widest, most_numbers);
  }
  const double mixtures = moe.every > 0 ? std::floor(real(model.layers) / real(moe.every)) : 0;
  const double networks = mixtures * real(moe.experts + moe.shared_experts) + real(model.layers) - mixtures;
  const double weights = networks * 3 * inner * real(model.d_model) +
                         4 * real(model.layers) * real(model.d_model) * real(model.d_model) +
                         2 * real(model.vocab) * real(model.d_model);
  if (check.sound({"model.vocab", "model.d_model", "model.d_ff", "model.layers", "moe.experts", "moe.shared_experts",
                   "moe.every"}) &&
      weights > most_numbers) {
    check.tell(
        "the model would have about {:.3g} weights, of which {:.3g} is the most: model.layers = {}, model.d_model = "
        "{}, "
        "an inner width of {:.0f}, moe.experts = {}, model.vocab = {}",
        weights, most_numbers, model.layers, model.d_model, inner, moe.experts, model.vocab);
  }
  const double tokens = real(train.steps) * real(train.global_batch) * real(model.seq_len);
  if (check.sound({"train.steps", "train.global_batch", "model.seq_len"}) && tokens > most_tokens) {
    check.tell(
        "train.steps = {} of train.global_batch = {} sequences of model.seq_len = {} are {:.3g} tokens; {:.3g} is the "
        "most",
        train.steps, train.global_batch, model.seq_len, tokens, most_tokens);
  }
}

std::string not_there(const fs::path& path) {
  std::error_code ignored;
  if (path.is_absolute()) return fmt::format("'{}' is not there", path.string());
  return fmt::format("'{}' is not there (looked for it in {})", path.string(), fs::current_path(ignored).string());
}

// A file or folder that cannot be reached is as good as missing.
bool there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

}  // namespace

void check_device(const Config& config, const KeyPlaces& places, std::vector<ConfigFault>& faults) {
  Check check(places, faults);
  if (!check.sound({"device"})) return;
  try {
    check_device(config.device);
  } catch (const Error& error) {
    return check.tell("{}", error.what());
  }
  const bool on_cpu = config.device == "cpu";
  if (check.sound({"train.dtype"}) && on_cpu && config.train.dtype == DType::BF16) {
    check.tell("train.dtype = \"bf16\" wants a GPU (device = \"cuda\"); the CPU computes in fp32");
  }
  if (check.sound({"train.attention", "train.dtype", "train.numerics"}) &&
      config.train.attention == AttentionChoice::Cudnn) {
    if (on_cpu || config.train.dtype != DType::BF16 || config.train.numerics != Numerics::Fast) {
      check.tell(
          "train.attention = \"cudnn\" is for device = \"cuda\" with train.dtype = \"bf16\" and train.numerics = "
          "\"fast\"; here they are \"{}\", \"{}\" and \"{}\"",
          config.device, config.train.dtype == DType::BF16 ? "bf16" : "fp32", name_of(config.train.numerics));
    } else if (!cudnn::why_not().empty()) {
      check.tell("train.attention = \"cudnn\", but there is no cuDNN that could be used: {}", cudnn::why_not());
    } else if (check.sound({"model.d_model", "model.heads", "model.seq_len"}) &&
               !cudnn::fits(
                   {.positions = config.model.seq_len, .head_dim = config.model.d_model / config.model.heads})) {
      check.tell(
          "train.attention = \"cudnn\" wants more positions than one and heads whose width is a multiple of 8, 256 at "
          "most; here are {} positions and heads of {}",
          config.model.seq_len, config.model.d_model / config.model.heads);
    }
  }
  if (on_cpu) return;
  if (check.sound({"exchange.wire"}) && config.exchange.wire == "int8") {
    check.tell("exchange.wire = \"int8\" is for ranks on CPUs; between GPUs rows travel as \"fp32\" or \"bf16\"");
  }
}

void check_combinations(const Config& config, int ranks, const KeyPlaces& places, std::vector<ConfigFault>& faults) {
  Check check(places, faults);
  check_model(config.model, check);
  check_moe(config, ranks, check);
  check_train(config.train, check);
  check_sizes(config, check);
}

void check_files(const Config& config, const KeyPlaces& places, std::vector<ConfigFault>& faults) {
  const DataConfig& data = config.data;
  Check check(places, faults);
  bool train_there = false;
  if (check.sound({"data.train"})) {
    train_there = !data.train.empty() && there(data.train);
    if (data.train.empty()) {
      check.tell("data.train is not given: the folder that `switchyard prepare --out` wrote, or a file in it");
    } else if (!train_there) {
      check.tell("data.train: {}", not_there(data.train));
    }
  }
  if (check.sound({"data.valid"}) && !data.valid.empty() && !there(data.valid)) {
    check.tell("data.valid: {}", not_there(data.valid));
  }
  if (!check.sound({"data.tokenizer", "data.train"})) return;
  if (!data.tokenizer.empty()) {
    if (!there(data.tokenizer)) check.tell("data.tokenizer: {}", not_there(data.tokenizer));
  } else if (train_there) {
    const fs::path folder = folder_of_data(data.train);
    if (!there(folder / "tokenizer.json")) {
      check.tell("there is no tokenizer.json beside data.train in '{}': say where it is with data.tokenizer",
                 folder.string());
    }
  }
}

std::filesystem::path folder_of_data(const std::string& train) {
  std::error_code error;
  if (!fs::is_regular_file(train, error)) return train;
  const fs::path parent = fs::path(train).parent_path();
  return parent.empty() ? "." : parent;
}

}  // namespace switchyard
