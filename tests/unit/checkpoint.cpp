// A checkpoint on one rank is what was saved, to the bit; and what cannot be saved is refused.
#include "tests/support/checkpoint_scratch.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/names.h"

#include <cstdlib>

#include <unistd.h>

namespace switchyard::test {
namespace {

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
