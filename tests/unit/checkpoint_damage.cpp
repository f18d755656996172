// LABEL slow
// Damage to the files of a checkpoint is found, and told by file, layer and expert.
#include "tests/support/checkpoint_scratch.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/checkpoint/manifest.h"

#include <unistd.h>

namespace switchyard::test {
namespace {

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

}  // namespace
}  // namespace switchyard::test
