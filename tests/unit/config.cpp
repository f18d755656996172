#include "trainer/config/config.h"

#include "comm/base/nearest.h"
#include "comm/device/device.h"
#include "data/loader/meta.h"
#include "tests/support/catch.h"
#include "trainer/config/compare.h"
#include "trainer/config/load.h"
#include "trainer/config/schema.h"

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include <unistd.h>

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// A folder of its own for each test, with data that a config may name.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / fmt::format("switchyard-config-{}-{}", getpid(), ++made)) {
    fs::create_directories(path_ / "data");
    write("data/tokenizer.json", "{}");
    write("data/shard.bin", "");
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  fs::path write(const std::string& name, const std::string& text) const {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name) << text;
    return path_ / name;
  }
  std::string data() const { return "[data]\ntrain = '" + (path_ / "data").string() + "'\n"; }
  const fs::path& path() const { return path_; }

 private:
  inline static int made = 0;
  fs::path path_;
};

using Sets = std::vector<std::string>;

// The faults as "place: message" with the folder's name taken off the place.
std::vector<std::string> faults_of(const LoadedConfig& loaded) {
  std::vector<std::string> lines;
  for (const ConfigFault& fault : loaded.faults) {
    const std::size_t slash = fault.where.starts_with("--set") ? std::string::npos : fault.where.rfind('/');
    lines.push_back((slash == std::string::npos ? fault.where : fault.where.substr(slash + 1)) + ": " + fault.message);
  }
  return lines;
}

std::vector<std::string> faults_of_text(const std::string& text, int ranks = 0) {
  return faults_of(parse_config(text, "x.toml", {}, ranks));
}

bool same(const Config& a, const Config& b) {
  return to_toml(a) == to_toml(b);
}

}  // namespace

TEST_CASE("an empty config is the defaults, resolved") {
  const LoadedConfig loaded = parse_config("", "x.toml", {}, 1);
  REQUIRE(loaded.faults.empty());
  CHECK(loaded.config.model.kv_heads == 4);
  CHECK(loaded.config.model.d_ff == 688);  // 8/3 of 256 is 682.7
  CHECK(loaded.config.train.lr == 1e-3);
}

TEST_CASE("values of every type are taken, and later sources win") {
  const Folder folder;
  folder.write("presets/base.toml", "[model]\nlayers = 7\nheads = 2\n[train]\nlr = 5e-4\n");
  const fs::path file = folder.write("run.toml",
                                     "preset = 'base'\n[model]\nheads = 8\ntie_embeddings = false\n[train]\nlr = 1\n"
                                     "numerics = 'fast'\nseed = 9223372036854775807\n" +
                                         folder.data());
  const LoadedConfig loaded = load_config(file, Sets{"model.heads=16", "model.norm=layer", " train.lr = 2.5e-3 "}, 4);
  CHECK(faults_of(loaded).empty());
  CHECK(loaded.config.model.layers == 7);
  CHECK(loaded.config.model.heads == 16);
  CHECK(loaded.config.model.norm == "layer");
  CHECK_FALSE(loaded.config.model.tie_embeddings);
  CHECK(loaded.config.train.lr == 2.5e-3);
  CHECK(loaded.config.train.numerics == Numerics::Fast);
  CHECK(loaded.config.train.seed == 9223372036854775807U);
  CHECK(loaded.config.data.tokenizer == (folder.path() / "data").string());
}

TEST_CASE("a preset may lie beside the config, be set, and never holds itself") {
  const Folder folder;
  folder.write("small.toml", "[model]\nlayers = 3\n");
  folder.write("presets/big.toml", "[model]\nlayers = 30\n");
  folder.write("presets/a.toml", "preset = 'b'\n");
  folder.write("presets/b.toml", "preset = 'a'\n");
  const fs::path file = folder.write("run.toml", "preset = 'small'\n" + folder.data());
  CHECK(load_config(file, {}, 1).config.model.layers == 3);
  CHECK(load_config(file, Sets{"preset=big"}, 1).config.model.layers == 30);
  CHECK(faults_of(load_config(file, Sets{"preset=bgi"}, 1)) ==
        Sets{"--set preset=bgi: there is no preset 'bgi' (did you mean 'big'?)"});
  CHECK(faults_of(load_config(folder.path() / "presets/a.toml", {}, 1, DataFiles::NotNeeded)) ==
        Sets{"a.toml:1: preset 'b' names itself, by way of b -> a"});
  // A config with the name of the preset that it builds upon.
  const fs::path shadow = folder.write("big.toml", "preset = 'big'\n");
  CHECK(load_config(shadow, {}, 1, DataFiles::NotNeeded).config.model.layers == 30);
}

TEST_CASE("every fault of a config is told at once, with its line") {
  const auto faults = faults_of_text(R"([modle]
layers = 3
[moe]
topk = 2
experts = "eight"
z_loss = -1
[train]
numerics = "reproducable"
warmup_steps = 10.0
layers = 5
[parallel]
expert = 3
)",
                                     2);
  CHECK(faults ==
        Sets{
            "x.toml:1: there is no section [modle] (did you mean 'model'?)",
            "x.toml:4: there is no key 'topk' in [moe] (did you mean 'top_k'?)",
            "x.toml:5: moe.experts = 'eight' is a text; it wants a whole number from 1 to 65536",
            "x.toml:6: moe.z_loss = -1 is out of range: it wants a number at least 0",
            "x.toml:8: train.numerics = 'reproducable' is not one of reproducible, fast (did you mean 'reproducible'?)",
            "x.toml:9: train.warmup_steps = 10.0 is a number with a point; it wants a whole number from 0 to "
            "1099511627776",
            "x.toml:10: there is no key 'layers' in [train] (did you mean model.layers?)",
            "x.toml:12: parallel.expert = 3 ranks, but the run has 2: start 3 ranks or lower it (0: as many as there "
            "are)",
        });
}

TEST_CASE("combinations that cannot be are told with their numbers, at the key said last") {
  const auto fault = [](const std::string& text, int ranks = 0) {
    const auto faults = faults_of_text(text, ranks);
    return faults.size() == 1 ? faults[0] : fmt::format("{} faults", faults.size());
  };
  CHECK(fault("[model]\nheads = 3") == "x.toml:2: model.d_model = 256 is not a multiple of model.heads = 3");
  CHECK(fault("[model]\nheads = 3\nd_model = 250") ==
        "x.toml:3: model.d_model = 250 is not a multiple of model.heads = 3");
  CHECK_THAT(fault("[model]\nd_model = 12"), Catch::Contains("a head is 3 wide"));
  CHECK(fault("[model]\nkv_heads = 3") == "x.toml:2: model.heads = 4 is not a multiple of model.kv_heads = 3");
  CHECK(fault("[moe]\ntop_k = 9") == "x.toml:2: moe.top_k = 9 experts a token, but there are only moe.experts = 8");
  CHECK_THAT(fault("[moe]\nevery = 5"), Catch::Contains("leaves no mixture layer"));
  CHECK_THAT(fault("[train]\nmicro_batch = 5"), Catch::Contains("global_batch = 32 sequences is not a multiple"));
  CHECK_THAT(fault("[train]\nsteps = 5\nwarmup_steps = 6"),
             Catch::Contains("train.warmup_steps = 6 is more than train.steps = 5"));
  CHECK_THAT(fault("[parallel]\nexpert = 9"), Catch::Contains("at most one rank an expert"));
  CHECK(fault("device = 'cdua'").starts_with("x.toml:1: there is no device \"cdua\""));
  CHECK_THAT(fault("device = 'cdua'"), Catch::Contains("(did you mean 'cuda'?)"));
  CHECK(fault("device = 'cuda:x'").starts_with("x.toml:1: there is no device \"cuda:x\""));
  CHECK(faults_of_text("[parallel]\nexpert = 4", 0).empty());  // 0 ranks: how many there are is not known
  CHECK(faults_of_text("[parallel]\nexpert = 4", 4).empty());
}

TEST_CASE("a device that this build has not is a fault of the config") {
  std::string sentence;
  try {
    check_device("cuda:1");
  } catch (const Error& error) {
    sentence = error.what();
  }
  const auto faults = faults_of_text("device = 'cuda:1'");
  if (sentence.empty()) {
    CHECK(faults.empty());
  } else {
    CHECK(faults == Sets{"x.toml:1: " + sentence});
  }
}

TEST_CASE("defaults that follow from other keys, and give way to what is said") {
  const auto train = [](const std::string& text) {
    const LoadedConfig loaded = parse_config("[train]\n" + text, "x.toml", {}, 0);
    CHECK(faults_of(loaded).empty());
    return loaded.config.train;
  };
  CHECK(train("").warmup_steps == 100);
  CHECK(train("steps = 5").warmup_steps == 0);
  CHECK(train("steps = 25").warmup_steps == 2);
  CHECK(train("steps = 1000000").warmup_steps == 100);
  CHECK(train("steps = 5\nwarmup_steps = 5").warmup_steps == 5);
  const auto renormalise = [](const std::string& text) {
    return parse_config("[moe]\n" + text, "x.toml", {}, 0).config.moe.renormalise;
  };
  CHECK(renormalise("top_k = 2"));
  CHECK(renormalise("top_k = 3"));
  CHECK_FALSE(renormalise("top_k = 1"));
  CHECK_FALSE(renormalise("top_k = 2\nrenormalise = false"));
  // What was resolved is written, and read as said.
  const Config saved = parse_config("[train]\nsteps = 30\n[moe]\ntop_k = 1", "x.toml", {}, 0).config;
  CHECK(same(parse_config(to_toml(saved), "saved", {}, 0).config, saved));
  const auto faults = faults_of_text("[moe]\ntop_k = 1\nrenormalise = true");
  REQUIRE(faults.size() == 1);
  CHECK_THAT(faults[0],
             Catch::StartsWith("x.toml:3: moe.renormalise = true with moe.top_k = 1 makes every gate weight 1"));
  CHECK(faults_of_text("[moe]\nevery = 0\ntop_k = 1\nrenormalise = true").empty());  // no mixture, no router
}

TEST_CASE("how rows lie on the wire: one key for all ways, and one for each") {
  const auto exchange = [](const std::string& text) {
    const LoadedConfig loaded = parse_config("[exchange]\n" + text, "x.toml", {}, 0);
    CHECK(faults_of(loaded).empty());
    return loaded.config.exchange;
  };
  CHECK(exchange("").wire == "fp32");
  CHECK(exchange("").of(exchange("").dispatch) == "fp32");
  const ExchangeConfig some = exchange("wire = 'bf16'\ncombine = 'int8'\ncombine_backward = 'fp32'\ndispatch = ''");
  CHECK(some.of(some.dispatch) == "bf16");
  CHECK(some.of(some.combine) == "int8");
  CHECK(some.of(some.dispatch_backward) == "bf16");
  CHECK(some.of(some.combine_backward) == "fp32");
  // What was left open stays so in the saved config, where wire can still be set for all ways.
  const std::string saved = to_toml(parse_config("", "x.toml", {}, 0).config);
  const ExchangeConfig later = parse_config(saved, "saved", Sets{"exchange.wire=int8"}, 0).config.exchange;
  CHECK(later.of(later.dispatch) == "int8");
  CHECK(faults_of_text("[exchange]\nwire = 'fp16'\ncombine = 'int4'\nchunks = 65") ==
        Sets{"x.toml:2: exchange.wire = 'fp16' is not one of fp32, bf16, int8",
             "x.toml:3: exchange.combine = 'int4' is not one of \"\", fp32, bf16, int8 (did you mean 'int8'?)",
             "x.toml:4: exchange.chunks = 65 is out of range: it wants a whole number from 1 to 64"});
  CHECK(faults_of_text("[parallel]\nexchange = 'hierarchical'").empty());
}

TEST_CASE("sizes whose products would not fit are told with their numbers") {
  const auto fault = [](const std::string& text) {
    const auto faults = faults_of_text(text);
    return faults.size() == 1 ? faults[0] : fmt::format("{} faults", faults.size());
  };
  // 2^10 sequences of 2^20 tokens for 2 experts: 2^31 rows; one expert fewer is possible.
  const std::string rows =
      "[train]\nglobal_batch = 1024\nmicro_batch = 1024\n[model]\nseq_len = 1048576\nd_model = 16\n";
  CHECK(
      fault(rows) ==
      "x.toml:5: train.micro_batch = 1024 sequences of model.seq_len = 1048576 tokens, each for moe.top_k = 2 experts, "
      "are 2147483648 rows in one micro-batch; below 2147483648 is possible");
  CHECK(faults_of_text(rows + "[moe]\ntop_k = 1\n").empty());
  CHECK_THAT(fault(rows + "vocab = 1073741824\n[moe]\ntop_k = 1\n"),
             Catch::Contains("(1073741824 rows of 1073741824)"));
  CHECK_THAT(fault("[model]\nlayers = 65536\n[moe]\nexperts = 65536\n"), Catch::Contains("the model would have about"));
  CHECK_THAT(fault("[model]\nd_model = 1048576\n[moe]\nexperts = 64\n"), Catch::Contains("an inner width of 2796203"));
  CHECK_THAT(fault("[train]\nsteps = 1099511627776\nglobal_batch = 1048576\n"),
             Catch::Contains("tokens; 4.61e+18 is the most"));
}

TEST_CASE("places become absolute, so that the saved config means the same from any folder") {
  const Folder folder;
  folder.write("data/" + std::string(kMetaName), "{}");
  const fs::path back = fs::current_path();
  fs::current_path(folder.path() / "data");
  const LoadedConfig loaded = parse_config("[data]\ntrain = '../data/./shard.bin'\n", "x.toml", {}, 0);
  const LoadedConfig said = parse_config("[data]\ntrain = '.'\nvalid = '../v'\ntokenizer = 't'\n", "x.toml", {}, 0);
  const fs::path here = fs::current_path();  // without links
  fs::current_path(back);
  CHECK(loaded.config.data.train == (here / "shard.bin").string());
  CHECK(loaded.config.data.valid == here.string());
  CHECK(loaded.config.data.tokenizer == here.string());
  CHECK(said.config.data.valid == (here.parent_path() / "v").string());
  CHECK(said.config.data.tokenizer == (here / "t").string());
  CHECK(same(parse_config(to_toml(said.config), "saved", {}, 0).config, said.config));
}

TEST_CASE("bounds: what lies on them and beyond") {
  const auto fine = [](const std::string& text) { return faults_of_text(text).empty(); };
  CHECK(fine("train.min_lr_ratio = 1"));
  CHECK_FALSE(fine("train.min_lr_ratio = 1.0000001"));
  CHECK_FALSE(fine("train.min_lr_ratio = -0.1"));
  CHECK(fine("train.beta2 = 0.0"));
  CHECK_FALSE(fine("train.beta2 = 1.0"));
  CHECK_FALSE(fine("train.eps = 0.0"));
  CHECK_FALSE(fine("train.lr = nan"));
  CHECK_FALSE(fine("train.lr = inf"));
  CHECK_FALSE(fine("train.micro_batch = 0"));
  CHECK_FALSE(fine("model.seq_len = 0"));
  CHECK_FALSE(fine("moe.capacity_factor = -1.0"));
  CHECK(fine("moe.capacity_factor = 1e6"));
  CHECK_FALSE(fine("moe.capacity_factor = 1.1e6"));
  CHECK_FALSE(fine("train.steps = 0"));
  CHECK(fine("train.steps = 1"));
  CHECK_FALSE(fine("train.seed = -1"));
  CHECK_FALSE(fine("model.d_model = 9223372036854775807"));
}

TEST_CASE("text that is not TOML is told with line and column, and nothing is guessed from it") {
  const auto faults = faults_of_text("[model]\nlayers = \n[moe]\ntop_k = 99\n");
  REQUIRE(faults.size() == 1);
  CHECK_THAT(faults[0], Catch::StartsWith("x.toml:2:10: not TOML: "));
  CHECK_THAT(faults_of_text("[model]\nlayers = 1\nlayers = 2\n").at(0), Catch::StartsWith("x.toml:3:"));
  CHECK_THAT(faults_of_text("model = 3").at(0), Catch::Contains("model is a section"));
  CHECK_THAT(faults_of_text("[[model]]\nlayers = 3").at(0), Catch::Contains("model is a section"));
  CHECK_THAT(faults_of_text("[moe]\nexperts = [8]").at(0), Catch::Contains("is a list; it wants a whole number"));
  CHECK_THAT(faults_of_text("[moe.router]\nname = 1").at(0), Catch::Contains("is a section; it wants"));
  CHECK_THAT(faults_of_text("preset = 3").at(0), Catch::Contains("wants the name of a preset"));
}

TEST_CASE("faults of --set name the argument") {
  const auto fault = [](const std::string& set) { return faults_of(parse_config("", "x.toml", Sets{set}, 0)).at(0); };
  CHECK(fault("moe.topk=3") == "--set moe.topk=3: there is no key 'topk' in [moe] (did you mean 'top_k'?)");
  CHECK(fault("mo.top_k=3") == "--set mo.top_k=3: there is no section [mo] (did you mean 'moe'?)");
  CHECK(fault("lr=3") == "--set lr=3: there is no key 'lr' at the top level (did you mean train.lr?)");
  CHECK(fault("moe.top_k") == "--set moe.top_k: --set wants SECTION.KEY=VALUE");
  CHECK(fault("moe.top_k=two") ==
        "--set moe.top_k=two: moe.top_k = 'two' is a text; it wants a whole number from 1 to 65536");
  CHECK_THAT(fault("moe.top_k="), Catch::Contains("is a text"));
  CHECK_THAT(fault("moe.top_k=9"), Catch::StartsWith("--set moe.top_k=9: moe.top_k = 9 experts a token"));
  // A text key takes the words as they are, whatever TOML would read into them.
  const auto taken = [](const std::string& set) {
    return fs::path(parse_config("", "x", Sets{set}, 0).config.data.train).filename();
  };
  CHECK(taken("data.train=2024-01-01") == "2024-01-01");
  CHECK(taken("data.train='a b'") == "a b");
  CHECK(taken("data.train=a=b") == "a=b");
}

TEST_CASE("files that are not there") {
  const Folder folder;
  const auto faults = [](const fs::path& file) { return faults_of(load_config(file, {}, 1)); };
  CHECK(faults(folder.path() / "none.toml") == Sets{"none.toml: there is no such config file"});
  CHECK_THAT(faults(folder.path()).at(0), Catch::Contains("is a folder"));
  CHECK_THAT(faults(folder.write("a.toml", "")).at(0), Catch::StartsWith("a.toml: data.train is not given"));
  const auto two =
      faults(folder.write("b.toml", "[data]\ntrain='/no/such'\ntokenizer='/no/tokenizer'\nvalid='/no/valid'\n"));
  CHECK(two == Sets{"b.toml:2: data.train: '/no/such' is not there", "b.toml:4: data.valid: '/no/valid' is not there",
                    "b.toml:3: data.tokenizer: '/no/tokenizer' is not there"});
  CHECK(faults(folder.write("c.toml", "[data]\ntrain='" + (folder.path() / "data/shard.bin").string() + "'")).empty());
  fs::remove(folder.path() / "data/tokenizer.json");
  CHECK_THAT(faults(folder.write("d.toml", folder.data())).at(0), Catch::Contains("there is no tokenizer.json"));
}

TEST_CASE("faults become one error") {
  CHECK_NOTHROW(config_or_throw(parse_config("", "x", {}, 0)));
  try {
    config_or_throw(parse_config("a = 1\nb = 2\n", "x", {}, 0));
    FAIL("no error");
  } catch (const ConfigFaults& error) {
    CHECK(error.exit_code() == 2);
    CHECK(error.faults().size() == 2);
    CHECK_THAT(error.what(), Catch::StartsWith("the config has 2 faults:\n  x:1: ") && Catch::Contains("\n  x:2: "));
  }
}

TEST_CASE("a config written as TOML loads back to the same, for hostile values too") {
  Config config;
  resolve(config);
  config.data.train = "/a \"quoted\" \\ path\twith\nall \x01 and \x7f and \xc3\xa9";
  config.data.tokenizer = "/t";
  config.train.lr = 0.1 + 0.2;
  config.train.eps = std::numeric_limits<double>::min();
  config.train.weight_decay = 3;
  config.train.steps = 1LL << 40;
  config.train.seed = 9223372036854775807U;
  config.train.numerics = Numerics::Fast;
  const LoadedConfig loaded = parse_config(to_toml(config), "x.toml", {}, 0);
  CHECK(faults_of(loaded).empty());
  CHECK(same(loaded.config, config));
  CHECK(loaded.config.data.train == config.data.train);
  CHECK(loaded.config.train.lr == config.train.lr);
  CHECK(loaded.config.train.eps == config.train.eps);
}

TEST_CASE("attention by cuDNN is for fast numerics in bf16 on a GPU") {
  const auto faults = faults_of_text("device = 'cpu'\n[train]\nattention = 'cudnn'");
  REQUIRE(faults.size() == 1);
  CHECK(faults[0].starts_with("x.toml:3: train.attention = \"cudnn\" is for device = \"cuda\" with train.dtype = "));
  CHECK(faults[0].ends_with("here they are \"cpu\", \"fp32\" and \"reproducible\""));
  CHECK(faults_of_text("device = 'cpu'\n[train]\nattention = 'ours'").empty());
}

TEST_CASE("every key is in the table, is named in the help, and reaches its own member") {
  const Config defaults;
  for (const ConfigKey& key : config_keys()) {
    INFO(key.path());
    CHECK(find_config_key(key.path()) == &key);
    CHECK_THAT(config_help(), Catch::Contains("\n" + key.name + " "));
    CHECK_FALSE(key.help.empty());
    // Another value of the key changes this key alone.
    ConfigValue other = key.get(defaults);
    if (auto* integer = std::get_if<std::int64_t>(&other)) ++*integer;
    if (auto* real = std::get_if<double>(&other)) *real += 0.001;
    if (auto* flag = std::get_if<bool>(&other)) *flag = !*flag;
    if (auto* text = std::get_if<std::string>(&other)) *text = key.choices.empty() ? "other" : key.choices.back();
    Config changed;
    key.set(changed, other);
    CHECK(key.get(changed) == other);
    for (const ConfigKey& rest : config_keys()) {
      if (&rest != &key) CHECK(rest.get(changed) == rest.get(defaults));
    }
  }
}

TEST_CASE("changes between two configs: what stands against going on, what makes another run, what is free") {
  Config was, is;
  is.parallel = {.expert = 3, .exchange = "flat", .ranks_per_node = 2, .zero = 1};
  is.checkpoint.every = 7;
  is.log.every = 9;
  is.moe.max_received_rows = 100;
  is.exchange.chunks = 4;
  is.train.recompute = Recompute::Block;
  for (const ConfigChange& change : config_changes(was, is)) CHECK(change.kind == ChangeKind::Free);
  is = was;
  is.model.layers = was.model.layers + 1;
  is.train.lr = 2 * was.train.lr;
  is.exchange.combine = "bf16";
  const std::vector<ConfigChange> changes = config_changes(was, is);
  REQUIRE(changes.size() == 3);
  CHECK(changes[0].key == "model.layers");
  CHECK(changes[0].kind == ChangeKind::Refused);
  CHECK(changes[1].key == "train.lr");
  CHECK(changes[1].kind == ChangeKind::Noted);
  CHECK(changes[2].key == "exchange.combine");
  CHECK(changes[2].kind == ChangeKind::Noted);
  CHECK(config_changes(was, was).empty());
}

TEST_CASE("the nearest name") {
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("trian", "train") == 1);  // a swap
  CHECK(edit_distance("TRAIN", "train") == 0);
  const Sets names{"experts", "top_k", "every"};
  CHECK(nearest_name("topk", names) == "top_k");
  CHECK(nearest_name("expert", names) == "experts");
  CHECK(nearest_name("zebra", names).empty());
}

}  // namespace switchyard
