#include "comm/base/ids.h"

#include "comm/base/dtype.h"
#include "comm/base/handle.h"
#include "comm/group/environment.h"
#include "tests/support/catch.h"

#include <cstdlib>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace switchyard {

// Numbers of different kinds do not mix, nor do plain ones slip in.
static_assert(!std::is_convertible_v<int, Rank>);
static_assert(!std::is_convertible_v<Rank, int>);
static_assert(!std::is_constructible_v<Node, Rank>);
static_assert(!std::is_assignable_v<Bytes&, Rows>);
static_assert(Rank(3) < Rank(4) && Rank(3) == Rank(3));
static_assert(Rank().value() == 0);
static_assert(size_of(DType::BF16) == 2 && size_of(dtype_of<double>()) == 8 && size_of(dtype_of<std::uint8_t>()) == 1);

TEST_CASE("a rank counts up") {
  Rank rank(7);
  REQUIRE((++rank).value() == 8);
  REQUIRE(rank == Rank(8));
}

TEST_CASE("narrowing to MPI's int is checked") {
  REQUIRE(checked_int(2147483647, "rows") == 2147483647);
  REQUIRE(checked_int(-2147483648LL, "rows") == -2147483647 - 1);
  for (const std::int64_t large : {std::int64_t{2147483648}, std::int64_t{-2147483649}, std::int64_t{1} << 40}) {
    try {
      checked_int(large, "rows");
      FAIL("taken: " << large);
    } catch (const Error& error) {
      REQUIRE(error.kind() == ErrorKind::Runtime);
      REQUIRE(std::string(error.what()).find("rows = " + std::to_string(large)) != std::string::npos);
    }
  }
}

TEST_CASE("errors carry their exit code") {
  REQUIRE(Error(ErrorKind::Runtime, "").exit_code() == 1);
  REQUIRE(Error(ErrorKind::Usage, "").exit_code() == 2);
  REQUIRE(Error(ErrorKind::Data, "").exit_code() == 65);
  REQUIRE_THROWS_WITH(fail(ErrorKind::Data, "{} of {}", 3, "x"), "3 of x");
  REQUIRE_NOTHROW(require(true, "not said"));
  REQUIRE_THROWS_AS(require(false, "said"), Error);
}

namespace {

std::multiset<int> released;
struct NumberTraits {
  using Value = int;
  static Value none() { return -1; }
  static void release(Value value) noexcept { released.insert(value); }
};
using Number = Handle<NumberTraits>;
static_assert(!std::is_copy_constructible_v<Number> && !std::is_copy_assignable_v<Number>);
static_assert(std::is_nothrow_move_constructible_v<Number> && std::is_nothrow_move_assignable_v<Number>);

}  // namespace

TEST_CASE("a handle is released once, by its last owner") {
  released.clear();
  {
    Number a(1);
    Number b(2);
    REQUIRE(a);
    a = std::move(b);
    REQUIRE(released == std::multiset<int>{1});
    REQUIRE(a.get() == 2);
    REQUIRE_FALSE(b);  // NOLINT: what a move leaves behind is the point here
    Number& same = a;
    a = std::move(same);
    REQUIRE(a.get() == 2);
    Number c(std::move(a));
    REQUIRE(c.get() == 2);
    std::vector<Number> many;
    for (int i = 10; i < 20; ++i) many.emplace_back(i);
    REQUIRE(released.size() == 1);
    many[3].reset();
    many[3].reset();
    REQUIRE(released == std::multiset<int>{1, 13});
  }
  REQUIRE(released == std::multiset<int>{1, 2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19});
}

namespace {

constexpr const char* launcher_variables[] = {"OMPI_COMM_WORLD_RANK",
                                              "OMPI_COMM_WORLD_SIZE",
                                              "OMPI_COMM_WORLD_LOCAL_RANK",
                                              "OMPI_COMM_WORLD_LOCAL_SIZE",
                                              "PMI_RANK",
                                              "PMI_SIZE",
                                              "MPI_LOCALRANKID",
                                              "MPI_LOCALNRANKS",
                                              "PMIX_RANK",
                                              "SLURM_STEP_ID",
                                              "SLURM_PROCID",
                                              "SLURM_NTASKS",
                                              "SLURM_STEP_NUM_TASKS",
                                              "SLURM_LOCALID",
                                              "SLURM_NTASKS_PER_NODE"};

LaunchedAs launched_with(const std::vector<std::pair<const char*, const char*>>& variables) {
  for (const char* name : launcher_variables) unsetenv(name);
  for (const auto& [name, value] : variables) setenv(name, value, 1);
  const LaunchedAs me = launched_as();
  for (const char* name : launcher_variables) unsetenv(name);
  return me;
}

}  // namespace

TEST_CASE("a process knows its rank from its launcher") {
  const LaunchedAs alone = launched_with({});
  REQUIRE((alone.rank == 0 && alone.size == 1 && !alone.launched));

  const LaunchedAs ompi = launched_with({{"OMPI_COMM_WORLD_RANK", "5"},
                                         {"OMPI_COMM_WORLD_SIZE", "8"},
                                         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                                         {"SLURM_STEP_ID", "0"},
                                         {"SLURM_PROCID", "1"},
                                         {"SLURM_NTASKS", "2"}});
  REQUIRE((ompi.rank == 5 && ompi.size == 8 && ompi.local_rank == 1 && ompi.local_size == 4 && ompi.launched));

  const LaunchedAs pmi = launched_with({{"PMI_RANK", "2"}, {"PMI_SIZE", "3"}});
  REQUIRE((pmi.rank == 2 && pmi.size == 3 && pmi.local_rank == 0 && pmi.launched));

  const LaunchedAs slurm =
      launched_with({{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "3"}, {"SLURM_NTASKS", "4"}, {"SLURM_LOCALID", "1"}});
  REQUIRE((slurm.rank == 3 && slurm.size == 4 && slurm.local_rank == 1 && slurm.launched));
  const LaunchedAs pmix =
      launched_with({{"SLURM_STEP_ID", "2"}, {"PMIX_RANK", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_NTASKS", "8"}});
  REQUIRE((pmix.rank == 1 && pmix.size == 2 && pmix.launched));

  // A batch script is no rank, nor is anything known from numbers that cannot be.
  REQUIRE_FALSE(launched_with({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}).launched);
  REQUIRE_FALSE(launched_with({{"OMPI_COMM_WORLD_RANK", "8"}, {"OMPI_COMM_WORLD_SIZE", "8"}}).launched);
  REQUIRE_FALSE(launched_with({{"PMI_RANK", "x"}, {"PMI_SIZE", "3"}}).launched);
  REQUIRE_FALSE(launched_with({{"PMI_RANK", "-1"}, {"PMI_SIZE", "3"}}).launched);
}

TEST_CASE("progress is kept for the last message") {
  REQUIRE(progress_step() == -1);
  set_progress(17, "exchange");
  REQUIRE(progress_step() == 17);
  REQUIRE(std::string(progress_phase()) == "exchange");
  REQUIRE_FALSE(Environment::host().empty());
}

}  // namespace switchyard
