// A thread for posted work: in order, failures are handed on, and nothing waits for what nobody wants any more.
#include "comm/exchange/work_thread.h"

#include "comm/transport/patience.h"
#include "tests/support/catch.h"

#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

namespace switchyard {
namespace {

TEST_CASE("work is done in the order in which it is posted, by another thread or at once") {
  for (const bool works : {true, false}) {
    std::vector<int> done;
    WorkThread thread(works);
    CHECK(thread.works() == works);
    for (int i = 0; i < 100; ++i) {
      thread.post([&done, i, works] {
        if (works == is_patient()) done.push_back(i);  // only a thread of its own has patience
      });
    }
    thread.wait(thread.posted());
    REQUIRE(done.size() == 100);
    for (int i = 0; i < 100; ++i) CHECK(done[static_cast<std::size_t>(i)] == i);
  }
}

TEST_CASE("what work throws is thrown by the wait, and nothing after it is done") {
  bool later = false;
  WorkThread thread(true);
  thread.post([] { throw std::runtime_error("broken"); });
  const WorkThread::Ticket last = thread.post([&] { later = true; });
  CHECK_THROWS_WITH(thread.wait(last), "broken");
  CHECK_FALSE(later);
  WorkThread at_once(false);
  CHECK_THROWS_WITH(at_once.post([] { throw std::runtime_error("broken"); }), "broken");
}

TEST_CASE("a wait for another rank is given up when the thread is taken down") {
  bool given_up = false;
  std::atomic<bool> started = false;
  {
    WorkThread thread(true);
    thread.post([&] {
      started = true;
      try {
        for (;;) pause_in_a_wait();
      } catch (const std::exception&) {
        given_up = true;
        throw;
      }
    });
    while (!started) std::this_thread::yield();
  }
  CHECK(given_up);
}

}  // namespace
}  // namespace switchyard
