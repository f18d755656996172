// RANKS 1 2 3 4 8
// Groups and nodes; and one rank's failure is every rank's, with one message and one kind.
#include "comm/group/agree.h"

#include "comm/group/environment.h"
#include "comm/group/topology.h"
#include "tests/support/check.h"

#include <optional>
#include <stdexcept>

namespace switchyard::test {
namespace {

struct Thrown {
  ErrorKind kind;
  std::string message;
};

template <class Work>
std::optional<Thrown> thrown_by(const Work& work) {
  try {
    work();
  } catch (const CollectiveError& error) {
    return Thrown{error.kind(), error.what()};
  }
  return std::nullopt;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void failures(const Group& world, Checks& checks) {
  const int me = world.rank().value();
  bool ran = false;
  checks.expect(!thrown_by([&] { collectively(world, "nothing", [&] { ran = true; }); }) && ran, "nothing failed");

  for (int first = 0; first < world.size(); ++first) {
    // This rank and all after it fail, each with words and a kind of its own.
    const auto thrown = thrown_by([&] {
      collectively(world, "opening a shard", [&] {
        if (me == first) fail(ErrorKind::Data, "shard {} is torn", me);
        if (me > first) fail(ErrorKind::Usage, "shard {} is not here", me);
      });
    });
    checks.expect(thrown.has_value(), "rank {} failed and rank {} does not know", first, me);
    if (!thrown) continue;
    checks.expect(thrown->kind == ErrorKind::Data, "the kind is that of the first failure");
    const std::string expected =
        fmt::format("rank {} on {}: opening a shard: shard {} is torn", first, Environment::host(), first);
    checks.expect(thrown->message == expected, "\"{}\" instead of \"{}\"", thrown->message, expected);
  }

  const int last = world.size() - 1;
  const auto foreign = thrown_by([&] {
    collectively(world, "work", [&] {
      if (me == last) throw std::out_of_range("no such key");
    });
  });
  checks.expect(foreign && foreign->kind == ErrorKind::Runtime && contains(foreign->message, "no such key"),
                "a standard exception");
  const auto strange = thrown_by([&] {
    collectively(world, "work", [&] {
      if (me == last) throw 7;
    });
  });
  checks.expect(strange && strange->kind == ErrorKind::Runtime, "something thrown that is not an exception");
}

void sameness(const Group& world, Checks& checks) {
  const int me = world.rank().value();
  const int last = world.size() - 1;
  checks.expect(!thrown_by([&] { require_same(world, "the seed", "17"); }), "all gave the same value");
  if (last == 0) return;

  // The planted fault of this file's comparisons between ranks: one rank has another value.
  const std::string mine = me == last ? "18" : "17";
  const auto thrown = thrown_by([&] { require_same(world, "the seed", mine); });
  checks.expect(
      thrown && thrown->message == fmt::format("the seed differs between ranks: rank 0 has \"17\", rank {} has "
                                               "\"18\"",
                                               last),
      "another value on rank {}: \"{}\"", last, thrown ? thrown->message : "");

  const std::string lengthy(5000, 'a');
  const auto far = thrown_by([&] { require_same(world, "the config", lengthy + (me == last ? "TAIL" : "END")); });
  checks.expect(far && contains(far->message, "TAIL") && contains(far->message, "END") && far->message.size() < 500,
                "long values are shown where they differ");
  const auto shorter = thrown_by([&] { require_same(world, "the config", me == last ? "" : lengthy); });
  checks.expect(shorter.has_value(), "an empty value is another value");
}

void groups(const Group& world, Checks& checks) {
  const int me = world.rank().value();
  const int n = world.size();
  std::vector<double> values = {1.0, me == n - 1 ? 0.1 : 0.0};
  world.sum(std::span<double>(values));
  checks.expect(values[0] == n && values[1] == 0.1, "sum of doubles: {}, {}", values[0], values[1]);
  std::vector<std::uint64_t> wide = {~std::uint64_t{0} / static_cast<std::uint64_t>(n)};
  world.sum(std::span<std::uint64_t>(wide));
  checks.expect(wide[0] == ~std::uint64_t{0} / static_cast<std::uint64_t>(n) * static_cast<std::uint64_t>(n), "uint64");
  std::vector<double> most = {static_cast<double>(-me)};
  world.max(std::span<double>(most));
  checks.expect(most[0] == 0.0, "max: {}", most[0]);
  checks.expect(world.any(me == n - 1) && !world.any(false), "any");

  const auto all = world.gather(std::string(usize(me * 3), static_cast<char>('a' + me)));
  checks.expect(isize(all.size()) == n, "gather gave {}", all.size());
  for (int r = 0; r < n; ++r) {
    checks.expect(all[usize(r)] == std::string(usize(r * 3), static_cast<char>('a' + r)), "gather: {}", all[usize(r)]);
  }
  checks.expect(world.broadcast(fmt::format("from {}", me), Rank(n - 1)) == fmt::format("from {}", n - 1), "broadcast");

  auto half = world.split(me % 2, me);
  checks.expect(half && half->size() == (n + 1 - me % 2) / 2, "split");
  Group moved = std::move(*half);
  checks.expect(moved.any(moved.rank().value() == moved.size() - 1), "a moved group is usable");
  auto nobody = world.split(-1, 0);
  checks.expect(nobody == nullptr, "a negative color gives no group");
}

// All ranks of a test are on this host; forced nodes take the place of others.
void nodes(const Group& world, Checks& checks) {
  const NodeMap found = find_nodes(world, 0);
  checks.expect(found.nodes() == 1 && !found.forced && isize(found.ranks_on[0].size()) == world.size(), "{} nodes",
                found.nodes());
  checks.expect(found.hosts == std::vector<std::string>{Environment::host()}, "the host's name");
  const NodeMap forced = find_nodes(world, 2);
  checks.expect(forced.node_of == force_nodes(world.size(), 2).node_of && forced.forced, "forced nodes");
  checks.expect(forced.hosts == std::vector<std::string>(usize(forced.nodes()), Environment::host()), "their hosts");
}

int run() {
  Environment env;
  Checks checks(env.world());
  groups(env.world(), checks);
  nodes(env.world(), checks);
  failures(env.world(), checks);
  sameness(env.world(), checks);
  return checks.finish();
}

}  // namespace
}  // namespace switchyard::test

int main() {
  return switchyard::test::run();
}
