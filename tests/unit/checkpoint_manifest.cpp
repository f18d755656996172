// Manifests and files that do not belong together, however right each looks by itself, are refused.
#include "tests/support/checkpoint_scratch.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/checkpoint/manifest.h"

#include <sys/stat.h>
#include <unistd.h>

namespace switchyard::test {
namespace {

// A manifest with a right first line over any text.
std::string sealed(const std::string& rest) {
  return fmt::format("{{\"format\": \"switchyard-checkpoint\", \"version\": 1, \"xxh3_128\": \"{}\",\n{}",
                     checkpoint::to_hex(checkpoint::hash128(rest)), rest);
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

}  // namespace
}  // namespace switchyard::test
