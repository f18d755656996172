// The folder of a run's checkpoints: which one is found, which ones go, and that no kill makes half of one.
#include "tests/support/checkpoint_scratch.h"
#include "trainer/checkpoint/browse.h"
#include "trainer/checkpoint/names.h"

#include <csignal>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

namespace switchyard::test {
namespace {

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

}  // namespace
}  // namespace switchyard::test
