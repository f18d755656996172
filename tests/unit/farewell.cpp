// What a process gives up before it leaves.
#include "comm/group/farewell.h"

#include "tests/support/catch.h"

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

namespace switchyard::test {
namespace {

TEST_CASE("what is there is given up once, in order; what has gone is not") {
  say_farewell();  // nothing to give up
  std::string order;
  const Farewell first([&] { order += 'a'; });
  {
    const Farewell gone([&] { order += 'b'; });
  }
  const Farewell second([&] { order += 'c'; });
  say_farewell();
  CHECK(order == "ac");
  say_farewell();
  CHECK(order == "ac");
}

TEST_CASE("what cannot be given up does not hold the process") {
  static std::atomic<bool> begun = false;
  auto* const held = new Farewell([] {  // it never goes: as in a process that leaves
    begun = true;
    while (true) std::this_thread::sleep_for(std::chrono::hours(1));
  });
  say_farewell();
  CHECK(begun);
  CHECK(held != nullptr);
}

}  // namespace
}  // namespace switchyard::test
