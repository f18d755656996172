// Checkpoints on one rank: round trip, and every kind of damage that the manifest and the hashes must catch.
#include "tests/support/catch.h"
#include "tests/support/checkpoint_state.h"
#include "tests/support/solo_group.h"
#include "trainer/checkpoint/audit.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/names.h"

#include <algorithm>
#include <csignal>
#include <fstream>
#include <iterator>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace fs = std::filesystem;

namespace switchyard::test {
namespace {

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// The message of the Error(Data) that `work` throws, or what went otherwise.
template <class Work>
std::string data_error(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.kind() == ErrorKind::Data ? error.what() : std::string("not a Data error: ") + error.what();
  }
  return "no error";
}

TestState whole_model(std::uint64_t seed) {
  TestState state(seed);
  state.add_model([](int, int) { return true; }, true);
  return state;
}

// A folder that goes with the test; in memory where the system has such a place, because each save waits for the disk.
struct Scratch {
  fs::path path = make_temporary_folder(fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path());
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { fs::remove_all(path); }

  fs::path save(std::int64_t step, std::int64_t keep = 0) {
    TestState state = whole_model(static_cast<std::uint64_t>(step));
    state.fill();
    return save_checkpoint(solo_group(), path, run_state(step), state.tensors(), keep);
  }
};

std::vector<checkpoint::AuditFault> damage_of(const fs::path& folder) {
  return checkpoint::audit_checkpoint(folder).faults;
}

std::string load_error(const fs::path& folder, std::uint64_t seed = 1) {
  TestState state = whole_model(seed);
  return data_error([&] { load_tensors(folder, state.tensors()); });
}

const char* const replicated_file = "replicated-00000-of-00001.h5";
const char* const experts_file = "experts-00000-of-00001.h5";
const std::vector<std::string> all_files = {experts_file, "index.h5", "manifest.json", replicated_file};

// A manifest with a right first line over any text.
std::string sealed(const std::string& rest) {
  return fmt::format("{{\"format\": \"switchyard-checkpoint\", \"version\": 1, \"xxh3_128\": \"{}\",\n{}",
                     checkpoint::to_hex(checkpoint::hash128(rest)), rest);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

TEST_CASE("what is saved is loaded, to the bit") {
  Scratch scratch;
  const fs::path folder = scratch.save(400);
  CHECK(folder == scratch.path / "step-00000400");
  CHECK(names_in(folder) == all_files);
  CHECK(names_in(scratch.path) == std::vector<std::string>{"latest", "step-00000400"});
  CHECK(read_file(scratch.path / "latest") == "step-00000400\n");

  TestState loaded = whole_model(400);
  CHECK(loaded.first_difference() != "");
  load_tensors(folder, loaded.tensors());
  CHECK(loaded.first_difference() == "");
  CHECK(damage_of(folder).empty());

  const CheckpointInfo info = read_checkpoint_info(folder);
  const RunState wanted = run_state(400);
  CHECK(info.path == folder);
  CHECK(info.ranks == 1);
  CHECK(info.bytes == isize(fs::file_size(folder / experts_file) + fs::file_size(folder / replicated_file) +
                            fs::file_size(folder / "index.h5")));
  CHECK(info.state.step == wanted.step);
  CHECK(info.state.updates == wanted.updates);
  CHECK(info.state.skipped == wanted.skipped);
  CHECK(info.state.tokens == wanted.tokens);
  CHECK(info.state.next_sample == wanted.next_sample);
  CHECK(info.state.seed == wanted.seed);
  CHECK(info.state.digest == wanted.digest);
  CHECK(info.state.run_id == wanted.run_id);
  CHECK(info.state.config_toml == wanted.config_toml);
  CHECK(info.state.numerics == wanted.numerics);
}

TEST_CASE("a rank may ask for some tensors only, and needs only their files") {
  Scratch scratch;
  const fs::path folder = scratch.save(1);
  fs::remove(folder / replicated_file);
  TestState part(1);
  part.add("layers.1.experts.4.w_down", {1, 4}, {9, 5});
  load_tensors(folder, part.tensors());
  CHECK(part.first_difference() == "");
}

TEST_CASE("a moment in pieces is one tensor, in whatever pieces it is loaded") {
  Scratch scratch;
  TestState state = whole_model(3);
  state.fill();
  std::vector<StateTensor> tensors;
  for (const StateTensor& tensor : state.tensors()) {
    if (tensor.kind == StateKind::Weight || tensor.shape.size() < 10) {
      tensors.push_back(tensor);
      continue;
    }
    std::int64_t first = 0;
    for (const std::int64_t count : {std::int64_t{1}, std::int64_t{6}, tensor.shape.size() - 7}) {
      StateTensor piece = tensor;
      piece.offset = first;
      piece.count = count;
      piece.data = tensor.data + first;
      tensors.push_back(piece);
      first += count;
    }
  }
  const fs::path folder = save_checkpoint(solo_group(), scratch.path, run_state(3), tensors, 0);
  CHECK(damage_of(folder).empty());
  TestState loaded = whole_model(3);
  load_tensors(folder, loaded.tensors());
  CHECK(loaded.first_difference() == "");

  // Other pieces: each wanted one begins and ends inside pieces that were saved.
  TestState again = whole_model(3);
  std::vector<StateTensor> wanted;
  for (const StateTensor& tensor : again.tensors()) {
    const std::int64_t half = tensor.shape.size() / 2;
    for (const std::int64_t first : {std::int64_t{0}, half}) {
      StateTensor piece = tensor;
      piece.offset = first;
      piece.count = first == 0 ? half : tensor.shape.size() - half;
      piece.data = tensor.data + first;
      wanted.push_back(piece);
    }
  }
  load_tensors(folder, wanted);
  CHECK(again.first_difference() == "");

  // One that is left out is missed, in the middle and at the end.
  for (const std::int64_t left_out : {std::int64_t{1}, std::int64_t{7}}) {
    std::vector<StateTensor> torn = tensors;
    std::erase_if(torn, [&](const StateTensor& tensor) {
      return tensor.name == "embed_tokens.weight" && tensor.kind == StateKind::Moment1 && tensor.offset == left_out;
    });
    CHECK(torn.size() == tensors.size() - 1);
    CHECK_THROWS_WITH(save_checkpoint(solo_group(), scratch.path, run_state(4), torn, 0),
                      Catch::Matchers::Contains(
                          fmt::format("embed_tokens.weight, moment m is not there from element {} on", left_out)));
  }
  std::vector<StateTensor> twice = tensors;
  for (StateTensor& tensor : twice) {
    if (tensor.offset == 1) tensor.count += 1;
  }
  CHECK_THROWS_WITH(save_checkpoint(solo_group(), scratch.path, run_state(4), twice, 0),
                    Catch::Matchers::Contains("twice"));
}

TEST_CASE("equal states give equal files") {
  Scratch one;
  Scratch two;
  const fs::path a = one.save(3);
  ::usleep(1'100'000);  // HDF5's time stamps have whole seconds
  const fs::path b = two.save(3);
  for (const std::string& name : all_files) CHECK(read_file(a / name) == read_file(b / name));
}

TEST_CASE("datasets have the paths that users know") {
  using checkpoint::dataset_path;
  CHECK(dataset_path("layers.3.experts.17.w_gate", StateKind::Weight) == "/layers/3/experts/17/w_gate");
  CHECK(dataset_path("layers.3.experts.17.w_gate", StateKind::Moment2) == "/optimizer/layers/3/experts/17/w_gate/v");
  CHECK(dataset_path("embed_tokens.weight", StateKind::Moment1) == "/optimizer/embed_tokens/weight/m");
  for (const char* name : {"", ".", "a..b", "a.", ".a", "a/../b", "optimizer.x", "a b"}) {
    CHECK_THROWS_AS(dataset_path(name, StateKind::Weight), Error);
  }
}

TEST_CASE("names of folders") {
  using namespace checkpoint;
  CHECK(step_of_folder_name("step-00000400") == 400);
  CHECK(step_of_folder_name("step-123456789") == 123456789);
  for (const char* name : {"step-400", "step-", "step-0000040x", "step--0000001", "step-00000400.tmp-run", "x"}) {
    CHECK_FALSE(step_of_folder_name(name).has_value());
  }
  CHECK(temporary_folder_name(400, "a/../b") == "step-00000400.tmp-a-..-b");
  CHECK(is_temporary_folder_name("step-00000400.tmp-run"));
  CHECK_FALSE(is_temporary_folder_name("step-400.tmp-run"));
  CHECK(is_trash_folder_name(".trash-step-00000400-0"));
  CHECK_FALSE(is_trash_folder_name(".trash-photos-0"));
}

TEST_CASE("truncated files are told by name") {
  Scratch scratch;
  const fs::path old = scratch.save(1);
  const fs::path folder = scratch.save(2);
  for (const std::string& name : all_files) {
    const std::string whole = read_file(folder / name);
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{100}, whole.size() / 2, whole.size() - 1}) {
      write_file(folder / name, whole.substr(0, size));
      INFO(name << " cut at " << size);
      if (name != "index.h5") CHECK(contains(load_error(folder), (folder / name).string()));
      std::vector<std::string> skipped;
      const auto found = find_newest_checkpoint(scratch.path, &skipped);
      REQUIRE(found.has_value());
      CHECK(found->path == old);
      REQUIRE(skipped.size() == 1);
      CHECK(contains(skipped[0], (folder / name).string()));
    }
    write_file(folder / name, whole + "x");
    if (name != "index.h5") CHECK(contains(load_error(folder), name));
    write_file(folder / name, whole);
  }
  CHECK(find_newest_checkpoint(scratch.path)->path == folder);
}

TEST_CASE("every flipped bit is detected, or is in the index, which loading never reads") {
  Scratch scratch;
  const fs::path folder = scratch.save(1);
  const Random random(7, "flips");
  for (const std::string& name : all_files) {
    std::string bytes = read_file(folder / name);
    int missed = 0;
    const std::uint64_t flips = name == "index.h5" ? 100 : 400;
    for (std::uint64_t i = 0; i < flips; ++i) {
      const std::uint64_t bit = random.bits(i) % (bytes.size() * 8);
      char& byte = bytes[bit / 8];
      byte = static_cast<char>(byte ^ (1 << (bit % 8)));
      write_file(folder / name, bytes);
      if (name == "index.h5") {
        TestState state = whole_model(1);
        load_tensors(folder, state.tensors());
        const auto damaged = damage_of(folder);
        if (state.first_difference() != "" || damaged.size() != 1 || damaged[0].file != name) ++missed;
      } else if (!contains(load_error(folder), (folder / name).string())) {
        ++missed;
      }
      byte = static_cast<char>(byte ^ (1 << (bit % 8)));
    }
    CHECK(missed == 0);
    write_file(folder / name, bytes);
  }
  CHECK(load_error(folder) == "no error");
}

TEST_CASE("damage is told by layer and expert") {
  Scratch scratch;
  const fs::path folder = scratch.save(1);
  const checkpoint::Manifest manifest = checkpoint::read_manifest(folder);
  const std::string whole = read_file(folder / experts_file);
  std::int64_t data_end = 0;
  for (const checkpoint::TensorRecord& tensor : manifest.tensors) {
    if (tensor.owner.replicated()) continue;
    std::string bytes = whole;
    bytes[usize(tensor.offset + tensor.bytes() - 1)] ^= 0x10;
    write_file(folder / experts_file, bytes);
    const auto damaged = damage_of(folder);
    REQUIRE(damaged.size() == 1);
    CHECK(damaged[0].file == experts_file);
    REQUIRE(damaged[0].tensors.size() == 1);
    CHECK(damaged[0].tensors[0].name == tensor.name);
    CHECK(damaged[0].tensors[0].kind == tensor.kind);
    CHECK(damaged[0].tensors[0].owner == tensor.owner);
    const std::string who = fmt::format("layer {} expert {} ({}", tensor.owner.layer, tensor.owner.expert, tensor.name);
    CHECK(checkpoint::list_damaged(damaged[0].tensors) ==
          fmt::format("layer {} expert {}", tensor.owner.layer, tensor.owner.expert));
    CHECK(contains(load_error(folder), who));
    data_end = std::max(data_end, tensor.offset + tensor.bytes());
  }
  // In HDF5's own structures no tensor is touched, and it is told all the same.
  std::string bytes = whole;
  bytes[9] ^= 1;
  write_file(folder / experts_file, bytes);
  REQUIRE(damage_of(folder).size() == 1);
  CHECK(damage_of(folder)[0].tensors.empty());
  // Cut short, everything behind the cut is named.
  write_file(folder / experts_file, whole.substr(0, usize(data_end - 1)));
  CHECK(damage_of(folder)[0].tensors.size() >= 1);
  fs::remove(folder / experts_file);
  CHECK(damage_of(folder)[0].tensors.size() == 8 * 9);
}

TEST_CASE("files that are not the ones written are refused") {
  Scratch scratch;
  const fs::path other = scratch.save(1);
  const fs::path folder = scratch.save(2);
  SECTION("missing") {
    fs::remove(folder / experts_file);
    CHECK(contains(load_error(folder), (folder / experts_file).string() + ": No such file"));
  }
  SECTION("of another step, with the same size") {
    REQUIRE(fs::file_size(other / experts_file) == fs::file_size(folder / experts_file));
    fs::copy_file(other / experts_file, folder / experts_file, fs::copy_options::overwrite_existing);
    CHECK(contains(load_error(folder), (folder / experts_file).string() + ": its XXH3-128"));
  }
  SECTION("a symbolic link, even to the right bytes") {
    fs::rename(folder / experts_file, scratch.path / "elsewhere.h5");
    fs::create_symlink(scratch.path / "elsewhere.h5", folder / experts_file);
    CHECK(contains(load_error(folder), "is a symbolic link"));
  }
  SECTION("a folder") {
    fs::remove(folder / experts_file);
    fs::create_directory(folder / experts_file);
    CHECK(contains(load_error(folder), "is not a regular file"));
  }
  SECTION("a pipe") {
    fs::remove(folder / experts_file);
    REQUIRE(::mkfifo((folder / experts_file).c_str(), 0666) == 0);
    CHECK(contains(load_error(folder), "is not a regular file"));
  }
  SECTION("no manifest") {
    fs::remove(folder / "manifest.json");
    CHECK(contains(load_error(folder), "no complete checkpoint"));
  }
  SECTION("another step's manifest") {
    fs::copy_file(other / "manifest.json", folder / "manifest.json", fs::copy_options::overwrite_existing);
    CHECK(contains(load_error(folder), "XXH3-128"));
    std::vector<std::string> skipped;
    CHECK(find_newest_checkpoint(scratch.path, &skipped)->path == other);
    CHECK(contains(skipped.at(0), "that of step 1"));
  }
}

TEST_CASE("a checkpoint of another model is refused before anything is read") {
  Scratch scratch;
  const fs::path folder = scratch.save(1);
  TestState unknown(1);
  unknown.add("layers.2.experts.0.w_gate", {2, 0}, {5, 9});
  CHECK(contains(data_error([&] { load_tensors(folder, unknown.tensors()); }),
                 "has no layer 2 expert 0 (layers.2.experts.0.w_gate)"));
  for (const Shape& shape : {Shape{9, 5}, Shape{45}, Shape{5, 9, 1}, Shape{5, 10}}) {
    TestState wrong(1);
    wrong.add("layers.1.experts.0.w_gate", {1, 0}, shape);
    const std::string message = data_error([&] { load_tensors(folder, wrong.tensors()); });
    CHECK(contains(message, experts_file));
    CHECK(contains(message, "has the shape [5, 9], the model wants " + shape.to_string()));
  }
}

TEST_CASE("a manifest with a right checksum is still not believed") {
  Scratch scratch;
  const fs::path folder = scratch.save(1);
  const fs::path path = folder / "manifest.json";
  const std::string text = read_file(path);
  const std::string rest = text.substr(text.find('\n') + 1);
  write_file(path, sealed(rest));
  REQUIRE(load_error(folder) == "no error");

  // As the program wrote it before it had a guard against loss spikes.
  std::string earlier = replaced(rest, "  \"spike_losses\": [],\n", "");
  earlier = replaced(earlier, "  \"left_out_in_a_row\": {\"not_finite\":0,\"spikes\":0},\n", "");
  write_file(path, sealed(earlier));
  REQUIRE(load_error(folder) == "no error");

  struct Case {
    const char* from;
    const char* to;
    const char* told;
  };
  for (const Case& c : {
           Case{"\"step\": 1,", "", "\"step\" is missing"},
           Case{"\"spike_losses\": []", "\"spike_losses\": [\"1\"]", "must be numbers"},
           Case{"{\"not_finite\":0,", "{\"not_finite\":-1,", "\"not_finite\" must be"},
           Case{"\"step\": 1,", "\"step\": -1,", "\"step\" must be a whole number"},
           Case{"\"step\": 1,", "\"step\": 1.5,", "\"step\" must be a whole number"},
           Case{"\"step\": 1,", "\"step\": 18446744073709551615,", "\"step\" must be a whole number"},
           Case{"\"step\": 1,", "\"step\": \"1\",", "\"step\" must be a whole number"},
           Case{"\"numerics\": \"fast\"", "\"numerics\": \"warp\"", "reproducible or fast"},
           Case{"\"digest\": \"0123456789abcdef\"", "\"digest\": \"0123456789ABCDEF\"", "hexadecimal"},
           Case{"d_model = 5", "d_model = 6", "\"config_hash\""},
           Case{"\"ranks\": 1", "\"ranks\": 0", "\"ranks\" must be"},
           Case{"\"cursor\": {", "\"cursor\": 5, \"old\": {", "cursor: is not a JSON object"},
           Case{"\"name\":\"replicated-00000-of-00001.h5\"", "\"name\":\"../replicated-00000-of-00001.h5\"",
                "plain file name"},
           Case{"\"name\":\"replicated-00000-of-00001.h5\"", "\"name\":\"/etc/passwd\"", "plain file name"},
           Case{"\"name\":\"replicated-00000-of-00001.h5\"", "\"name\":\"..\"", "plain file name"},
           Case{"\"name\":\"replicated-00000-of-00001.h5\"", "\"name\":\"experts-00000-of-00001.h5\"", "twice"},
           Case{"\"name\":\"replicated-00000-of-00001.h5\"", "\"name\":\"other.h5\"", "not listed"},
           Case{"\"dtype\":\"float32\"", "\"dtype\":\"float64\"", "float32"},
           Case{"\"shape\":[13,5]", "\"shape\":[13,0]", "\"shape\" must be"},
           Case{"\"shape\":[13,5]", "\"shape\":[]", "1 to 4 dimensions"},
           Case{"\"shape\":[13,5]", "\"shape\":[1,1,1,13,5]", "1 to 4 dimensions"},
           Case{"\"shape\":[13,5]", "\"shape\":[4294967296,4294967296,4294967296]", "too many elements"},
           Case{"\"shape\":[13,5]", "\"shape\":[13,500000]", "does not fit"},
           Case{"\"shape\":[13,5]", "\"shape\":{\"13\":5}", "must be a list"},
           Case{"\"state\":\"weight\"", "\"state\":\"mass\"", "weight, m or v"},
           Case{"\"state\":\"m\"", "\"state\":\"weight\"", "is not the path of"},
           Case{"\"shape\":[13,5]", "\"shape\":[13,5],\"piece\":[0,64]", "is not the path of"},
           Case{"\"shape\":[13,5]", "\"shape\":[13,5],\"piece\":[60,6]", "\"piece\" must be"},
           Case{"\"shape\":[13,5]", "\"shape\":[13,5],\"piece\":[0,0]", "\"piece\" must be"},
           Case{"\"shape\":[13,5]", "\"shape\":[13,5],\"piece\":7", "\"piece\" must be a list"},
           Case{"\"kind\":\"replicated\"", "\"kind\":\"expert\"", "\"layer\" is missing"},
           Case{"\"kind\":\"replicated\"", "\"kind\":\"spare\"", "replicated or expert"},
           Case{"\"path\":\"/embed_tokens/weight\"", "\"path\":\"/embed_tokens/../weight\"", "is not the path of"},
           Case{"\"path\":\"/embed_tokens/weight\"", "\"path\":\"/layers/0\"", "is not the path of"},
           Case{"\"path\":\"/embed_tokens/weight\"", "\"path\":\"/nothing/there\"", "is not the path of"},
           Case{"\"files\": [", "\"files\": 3, \"old\": [", "\"files\" must be a list"},
           Case{"\"files\": [", "\"files\": [[[[[[[[", "is not JSON"},
       }) {
    write_file(path, sealed(replaced(rest, c.from, c.to)));
    INFO(c.from << " -> " << c.to);
    const std::string message = load_error(folder);
    CHECK(contains(message, c.told));
    CHECK(contains(message, folder.string()));
  }
  // Deep nesting must not use up the stack.
  write_file(path, sealed("\"x\": " + std::string(1'000'000, '[')));
  CHECK(contains(load_error(folder), "is not JSON"));

  write_file(path, replaced(text, "\"version\": 1", "\"version\": 2"));
  CHECK(contains(load_error(folder), "format version 2; this program reads version 1"));
  write_file(path, "{\"some\": \"other program's\"}\n");
  CHECK(contains(load_error(folder), "does not begin as the manifest"));
}

TEST_CASE("the newest torn, the one before is found") {
  Scratch scratch;
  CHECK_FALSE(find_newest_checkpoint(scratch.path / "nowhere").has_value());
  CHECK_FALSE(find_newest_checkpoint(scratch.path).has_value());
  const fs::path one = scratch.save(1);
  const fs::path two = scratch.save(2);
  fs::create_directory(scratch.path / "step-00000003");  // as a crash of another program leaves it
  fs::create_directory_symlink(two, scratch.path / "step-00000004");
  fs::resize_file(two / experts_file, 1000);
  std::vector<std::string> skipped;
  CHECK(find_newest_checkpoint(scratch.path, &skipped)->path == one);
  REQUIRE(skipped.size() == 3);
  CHECK(contains(skipped[0], "step-00000004: is a symbolic link"));
  CHECK(contains(skipped[1], "step-00000003"));
  CHECK(contains(skipped[2], (two / experts_file).string() + ": has 1000 bytes"));

  const std::vector<StepListing> list = list_runs(scratch.path).at(0).checkpoints;
  REQUIRE(list.size() == 4);
  CHECK(list[0].problem == skipped[0]);
  CHECK_FALSE(list[1].info.has_value());
  CHECK(list[2].info->state.step == 2);
  CHECK(list[2].problem == skipped[2]);
  CHECK(list[3].problem == "");
}

TEST_CASE("a flipped bit passes for sizes, and not for hashes") {
  Scratch scratch;
  const fs::path one = scratch.save(1);
  const fs::path two = scratch.save(2);
  std::string bytes = read_file(two / experts_file);
  bytes[bytes.size() / 2] ^= 4;
  write_file(two / experts_file, bytes);
  CHECK(find_newest_checkpoint(scratch.path)->path == two);
  CHECK(contains(load_error(two, 2), experts_file));
  CHECK(find_newest_checkpoint(scratch.path, nullptr, 2)->path == one);
  CHECK(load_error(one) == "no error");
}

TEST_CASE("old checkpoints go, the newest complete ones and foreign things stay") {
  Scratch scratch;
  fs::create_directories(scratch.path / "step-00000001.tmp-notes");
  write_file(scratch.path / "step-00000001.tmp-notes" / "mine.txt", "keep me");
  fs::create_directories(scratch.path / ".trash-step-00000001-0");
  write_file(scratch.path / ".trash-step-00000001-0" / "mine.txt", "keep me");
  fs::create_directories(scratch.path / "step-00000001.tmp-dead");  // a save that was killed
  write_file(scratch.path / "step-00000001.tmp-dead" / checkpoint::marker_name, "run dead\n");
  write_file(scratch.path / "step-00000001.tmp-dead" / experts_file, "half");
  fs::create_directories(scratch.path / "step-00000001.tmp-alive");
  write_file(scratch.path / "step-00000001.tmp-alive" / checkpoint::marker_name, "run alive\n");
  const int alive = ::open((scratch.path / "step-00000001.tmp-alive" / checkpoint::marker_name).c_str(), O_RDONLY);
  REQUIRE(::flock(alive, LOCK_EX) == 0);

  for (std::int64_t step = 1; step <= 5; ++step) scratch.save(step);
  fs::remove(scratch.path / "step-00000005" / experts_file);
  scratch.save(6, 2);
  CHECK(names_in(scratch.path) == std::vector<std::string>{".trash-step-00000001-0", "latest",
                                                           "step-00000001.tmp-alive", "step-00000001.tmp-notes",
                                                           "step-00000004", "step-00000005", "step-00000006"});
  ::close(alive);
  // An older step saved anew, after going back, is not at once thrown away for being old.
  scratch.save(2, 1);
  CHECK(names_in(scratch.path) == std::vector<std::string>{".trash-step-00000001-0", "latest",
                                                           "step-00000001.tmp-notes", "step-00000002", "step-00000005",
                                                           "step-00000006"});
  CHECK(read_file(scratch.path / "latest") == "step-00000002\n");
}

TEST_CASE("a step saved again takes the place of the old one") {
  Scratch scratch;
  const fs::path folder = scratch.save(1);
  fs::resize_file(folder / experts_file, 10);
  CHECK(load_error(folder) != "no error");
  CHECK(scratch.save(1) == folder);
  CHECK(load_error(folder) == "no error");
  CHECK(names_in(scratch.path) == std::vector<std::string>{"latest", "step-00000001"});

  fs::create_directory(scratch.path / "step-00000002");
  write_file(scratch.path / "step-00000002" / "notes.txt", "not a checkpoint");
  CHECK_THROWS_WITH(scratch.save(2), Catch::Matchers::Contains("is no checkpoint, so it is not replaced"));
  CHECK(fs::exists(scratch.path / "step-00000002" / "notes.txt"));
}

TEST_CASE("killed at any instant, the newest checkpoint that was reported is there, and no half of another") {
  Scratch scratch;
  scratch.save(1);
  const Random random(1, "kills");
  std::int64_t newest = 1;
  for (std::uint64_t i = 0; i < 40; ++i) {
    int pipe_ends[2];
    REQUIRE(::pipe(pipe_ends) == 0);
    const pid_t child = ::fork();
    if (child == 0) {  // saves until it is killed, and says which saves were reported as done
      for (std::int64_t step = newest + 1;; ++step) {
        scratch.save(step, 2);
        if (::write(pipe_ends[1], &step, sizeof step) != sizeof step) ::_exit(1);
      }
    }
    ::close(pipe_ends[1]);
    ::usleep(static_cast<useconds_t>(random.bits(i) % 30'000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(pipe_ends[0], &newest, sizeof newest) == sizeof newest) {
    }
    ::close(pipe_ends[0]);

    const auto found = find_newest_checkpoint(scratch.path);
    REQUIRE(found.has_value());
    // The next one may have been committed, and the word of it lost.
    CHECK((found->state.step == newest || found->state.step == newest + 1));
    newest = found->state.step;
    REQUIRE(damage_of(found->path).empty());
    TestState state = whole_model(static_cast<std::uint64_t>(newest));
    load_tensors(found->path, state.tensors());
    CHECK(state.first_difference() == "");
  }
  scratch.save(newest + 1, 1);
  CHECK(names_in(scratch.path) == std::vector<std::string>{"latest", checkpoint::step_folder_name(newest + 1)});
}

TEST_CASE("a save that cannot be is refused and leaves nothing") {
  Scratch scratch;
  const Group solo = solo_group();
  float value = 1;
  const StateTensor good{"a.b", StateKind::Weight, {}, {1}, &value, true};
  const auto refusal = [&](std::vector<StateTensor> tensors, const fs::path& where) {
    try {
      save_checkpoint(solo, where, run_state(1), tensors, 0);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  StateTensor huge = good;
  huge.shape = {std::int64_t{1} << 30, std::int64_t{1} << 16};
  CHECK(contains(refusal({huge}, scratch.path), "a checkpoint needs 281.5 TB"));
  CHECK(contains(refusal({good, good}, scratch.path), "a.b is to be saved twice"));
  StateTensor inside = good;
  inside.name = "a.b.c";
  CHECK(contains(refusal({good, inside}, scratch.path), "a/b"));  // a dataset is no group
  StateTensor orphan = good;
  orphan.name = "a.c";
  orphan.write = false;
  CHECK(contains(refusal({good, orphan}, scratch.path), "/a/c of rank 0 was written by no rank"));
  CHECK(names_in(scratch.path).empty());
  write_file(scratch.path / "file", "");
  CHECK(contains(refusal({good}, scratch.path / "file"), "file"));
  CHECK(contains(refusal({good}, scratch.path / "file" / "deeper"), "cannot create the folder"));
}

// Not run by itself: writes a checkpoint to $EXPORT, and each tensor's bytes under $EXPORT/raw, for tests of other
// programs.
TEST_CASE("export", "[.export]") {
  const char* folder = std::getenv("EXPORT");
  REQUIRE(folder != nullptr);
  fs::create_directories(fs::path(folder) / "raw");
  TestState state = whole_model(400);
  state.fill();
  save_checkpoint(solo_group(), folder, run_state(400), state.tensors(), 0);
  for (const StateTensor& tensor : state.tensors()) {
    const auto* bytes = reinterpret_cast<const char*>(tensor.data);
    write_file(fs::path(folder) / "raw" / (tensor.name + "." + checkpoint::state_name(tensor.kind)),
               std::string(bytes, usize(tensor.shape.size()) * sizeof(float)));
  }
}

}  // namespace
}  // namespace switchyard::test
