// What gets messages on while a rank computes? Under mpirun with an even number of ranks, rank r and r + ranks / 2
// exchange rows while both compute, four ways in turn:
//
//   apart       first the rows, then the computation
//   unattended  started, then the computation, then waited for: what MPI does by itself
//   tests       the same, with a question to MPI between pieces of the computation of about 1 ms
//   thread      a thread asks, with naps of 50 us: what the exchange does
//
//   launch/testbed/testbed mpirun -np 2 build/ci/tests/bench_progress
#include "comm/exchange/work_thread.h"
#include "comm/group/environment.h"
#include "layers/ops/gemm.h"
#include "layers/tensor/tensor.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <vector>

#include <fmt/core.h>
#include <omp.h>

namespace switchyard::test {
namespace {

constexpr std::int64_t message_bytes = 8 << 20;
constexpr int rounds = 9;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Products of about 1 ms each.
class Computation {
 public:
  Computation() : x_(256 * 512, 1.0F), w_(512 * 512, 0.5F), y_(256 * 512) {
    packed_.pack_transposed(Tensor(w_.data(), DType::F32, {512, 512}, cpu_device()));
  }
  void piece() {
    gemm(Tensor(x_.data(), DType::F32, {256, 512}, cpu_device()), packed_,
         Tensor(y_.data(), DType::F32, {256, 512}, cpu_device()));
  }

 private:
  std::vector<float> x_, w_, y_;
  PackedMatrix packed_;
};

int run() {
  Environment environment;
  const Group& world = environment.world();
  Transport& transport = world.transport();
  const int half = world.size() / 2;
  require(world.size() == 2 * half, "an even number of ranks is needed, not {}", world.size());
  omp_set_num_threads(1);
  const Rank peer((world.rank().value() + half) % world.size());
  std::vector<std::byte> out(usize(message_bytes)), in(usize(message_bytes));
  const SendPart send{peer, out.data(), Bytes(message_bytes)};
  const ReceivePart receive{peer, in.data(), Bytes(message_bytes)};
  const auto start = [&] { return transport.start(std::span(&send, 1), std::span(&receive, 1)); };

  // As much computation as the rows take alone.
  Computation computation;
  double alone = 1e9;
  double piece = 1e9;
  for (int i = 0; i < 4; ++i) {
    world.barrier();
    auto from = std::chrono::steady_clock::now();
    start()->wait();
    alone = std::min(alone, seconds_since(from));
    from = std::chrono::steady_clock::now();
    computation.piece();
    piece = std::min(piece, seconds_since(from));
  }
  std::array<double, 2> slowest = {alone, piece};
  world.max(slowest);
  const int pieces = std::max(1, static_cast<int>(slowest[0] / slowest[1]));

  std::vector<int> arrived;
  const auto compute = [&](Messages* asked) {
    for (int i = 0; i < pieces; ++i) {
      computation.piece();
      if (asked != nullptr) asked->poll(arrived);
    }
  };
  const std::array<const char*, 4> names = {"apart", "unattended", "tests", "thread"};
  std::array<std::vector<double>, 4> times;
  WorkThread thread(/*works=*/true);
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t way = 0; way < names.size(); ++way) {
      world.barrier();
      const auto from = std::chrono::steady_clock::now();
      if (way == 3) {
        const auto ticket = thread.post([&] { start()->wait(); });
        compute(nullptr);
        thread.wait(ticket);
      } else {
        const auto messages = start();
        if (way == 0) messages->wait();
        compute(way == 2 ? messages.get() : nullptr);
        messages->wait();
      }
      std::array<double, 1> slowest_rank = {seconds_since(from)};
      world.max(slowest_rank);
      times[way].push_back(slowest_rank[0]);
    }
  }
  if (!world.is_root()) return 0;
  fmt::print("{} ranks, {} MiB to and from each; computation of {:.0f} ms beside {:.0f} ms of messages\n", world.size(),
             message_bytes >> 20, 1e3 * pieces * slowest[1], 1e3 * slowest[0]);
  for (std::size_t way = 0; way < names.size(); ++way) {
    std::sort(times[way].begin(), times[way].end());
    const double median = times[way][times[way].size() / 2];
    const double apart = times[0][times[0].size() / 2];
    fmt::print("{:<11} {:7.1f} ms  {:4.2f} of apart\n", names[way], 1e3 * median, median / apart);
  }
  return 0;
}

}  // namespace
}  // namespace switchyard::test

int main() {
  return switchyard::test::run();
}
