// RANKS 1 2 4 8
// Who may say why the job ends: of all the ranks of a host one, however many ask at the same time, and nobody after it.
#include "comm/group/last_words.h"

#include "comm/group/environment.h"
#include "tests/support/check.h"

#include <set>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

namespace switchyard::test {
namespace {

int run() {
  Environment env;
  const Group& world = env.world();
  Checks checks(world);
  const std::vector<std::string> hosts = world.gather(Environment::host());
  const auto on_hosts = static_cast<std::int64_t>(std::set(hosts.begin(), hosts.end()).size());
  const auto claims = [&] {
    std::int64_t mine[1] = {claim_last_words() ? 1 : 0};
    world.sum(std::span<std::int64_t>(mine));
    return mine[0];
  };

  // Planted fault: ranks that know of themselves alone would all speak.
  checks.expect(claims() == world.size(), "a rank on its own is not the first");
  checks.expect(claims() == 0, "a rank claims twice");

  for (int round = 0; round < 20; ++round) {
    share_last_words(world);
    world.barrier();
    const std::int64_t first = claims();
    checks.expect(first == on_hosts, "round {}: {} ranks speak on {} hosts", round, first, on_hosts);
    checks.expect(claims() == 0, "round {}: said again", round);
  }

  // What a process has claimed stays claimed when it is gone.
  share_last_words(world);
  world.barrier();
  if (world.is_root()) {
    const pid_t child = fork();
    if (child == 0) _exit(claim_last_words() ? 0 : 1);
    int status = -1;
    waitpid(child, &status, 0);
    checks.expect(status == 0, "the child was the first");
  }
  world.barrier();
  const std::int64_t after = claims();
  checks.expect(after == on_hosts - 1, "{} ranks speak after one that is gone", after);
  return checks.finish();
}

}  // namespace
}  // namespace switchyard::test

int main() {
  return switchyard::test::run();
}
