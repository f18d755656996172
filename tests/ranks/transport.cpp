// RANKS 1 2 3 4 8
// Every call of the transport against what its definition says, with messages that are split (largest_message is set to
// a few bytes) as well as whole.
#include "comm/base/error.h"
#include "comm/group/environment.h"
#include "comm/transport/self.h"
#include "comm/transport/waiting.h"
#include "tests/support/check.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <numeric>
#include <thread>
#include <utility>

namespace switchyard::test {
namespace {

// A number that says who sent it, to whom, and where in the message it stands.
std::int32_t stamp(int from, int to, std::int64_t i) {
  return from * 1'000'000 + to * 10'000 + static_cast<std::int32_t>(i);
}
std::int64_t length(int from, int to) {
  return (from * 7 + to * 3) % 5 == 0 ? 0 : (from * 31 + to * 17) % 97;
}

void exchanges(Transport& t, Checks& checks) {
  const int me = t.rank().value();
  std::vector<std::vector<std::int32_t>> out(usize(t.size()));
  std::vector<std::vector<std::int32_t>> in(usize(t.size()));
  std::vector<std::int32_t> second_out(usize(t.size()));
  std::vector<std::int32_t> second_in(usize(t.size()), -1);
  std::vector<SendPart> sends;
  std::vector<ReceivePart> receives;
  for (int peer = 0; peer < t.size(); ++peer) {
    auto& to = out[usize(peer)];
    to.resize(usize(length(me, peer)));
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = stamp(me, peer, isize(i));
    auto& from = in[usize(peer)];
    from.assign(usize(length(peer, me)), -1);
    second_out[usize(peer)] = stamp(me, peer, 9999);
    sends.push_back({Rank(peer), to.data(), Bytes(isize(to.size() * sizeof(std::int32_t)))});
    sends.push_back({Rank(peer), &second_out[usize(peer)], Bytes(sizeof(std::int32_t))});
    receives.push_back({Rank(peer), from.data(), Bytes(isize(from.size() * sizeof(std::int32_t)))});
    receives.push_back({Rank(peer), &second_in[usize(peer)], Bytes(sizeof(std::int32_t))});
  }
  t.exchange(sends, receives);
  for (int peer = 0; peer < t.size(); ++peer) {
    const auto& from = in[usize(peer)];
    for (std::size_t i = 0; i < from.size(); ++i) {
      checks.expect(from[i] == stamp(peer, me, isize(i)), "element {} from rank {} is {}", i, peer, from[i]);
    }
    checks.expect(second_in[usize(peer)] == stamp(peer, me, 9999), "the second message from rank {} is {}", peer,
                  second_in[usize(peer)]);
  }
}

void collectives(Transport& t, Checks& checks) {
  const int me = t.rank().value();
  const int n = t.size();

  std::vector<std::int64_t> values(usize(3 * n));
  std::vector<std::int64_t> result(usize(3 * n), -1);
  for (int r = 0; r < n; ++r) {
    for (int i = 0; i < 3; ++i) values[usize(3 * r + i)] = stamp(me, r, i);
  }
  t.all_to_all(values.data(), result.data(), 3);
  for (int r = 0; r < n; ++r) {
    for (int i = 0; i < 3; ++i) checks.expect(result[usize(3 * r + i)] == stamp(r, me, i), "all_to_all from {}", r);
  }

  struct Row {
    std::int32_t stamps[3];
  };
  std::vector<std::int64_t> counts;
  std::vector<std::int64_t> received_counts;
  std::vector<Row> rows;
  for (int r = 0; r < n; ++r) {
    counts.push_back(length(me, r));
    received_counts.push_back(length(r, me));
    for (std::int64_t i = 0; i < length(me, r); ++i) rows.push_back({{stamp(me, r, i), -1, stamp(r, me, i)}});
  }
  std::vector<Row> received(usize(std::accumulate(received_counts.begin(), received_counts.end(), std::int64_t{0})));
  t.all_to_all_rows(rows.data(), counts, received.data(), received_counts, Bytes(sizeof(Row)));
  std::size_t next = 0;
  for (int r = 0; r < n; ++r) {
    for (std::int64_t i = 0; i < length(r, me); ++i) {
      const Row& row = received[next++];
      checks.expect(row.stamps[0] == stamp(r, me, i) && row.stamps[1] == -1 && row.stamps[2] == stamp(me, r, i),
                    "all_to_all_rows: row {} from rank {}", i, r);
    }
  }

  constexpr std::int64_t count = 1001;
  std::vector<std::int64_t> sums(count);
  std::vector<float> most(count);
  std::vector<std::uint64_t> bits(count);
  std::vector<std::uint8_t> least(count);
  for (std::size_t i = 0; i < count; ++i) {
    sums[i] = isize(i) * (me + 1) - 500;
    most[i] = static_cast<float>((me * 13 + static_cast<int>(i)) % 7);
    bits[i] = std::uint64_t{1} << (static_cast<unsigned>(me) + i % 50);
    least[i] = static_cast<std::uint8_t>(100 + (me * 13 + static_cast<int>(i)) % 7);
  }
  t.all_reduce(sums.data(), count, DType::I64, ReduceOp::Sum);
  t.all_reduce(most.data(), count, DType::F32, ReduceOp::Max);
  t.all_reduce(bits.data(), count, DType::U64, ReduceOp::BitOr);
  t.all_reduce(least.data(), count, DType::U8, ReduceOp::Min);
  for (std::size_t i = 0; i < count; ++i) {
    std::int64_t sum = 0;
    int max = 0;
    int min = 1000;
    std::uint64_t all_bits = 0;
    for (int r = 0; r < n; ++r) {
      sum += isize(i) * (r + 1) - 500;
      max = std::max(max, (r * 13 + static_cast<int>(i)) % 7);
      min = std::min(min, 100 + (r * 13 + static_cast<int>(i)) % 7);
      all_bits |= std::uint64_t{1} << (static_cast<unsigned>(r) + i % 50);
    }
    checks.expect(sums[i] == sum && most[i] == static_cast<float>(max) && bits[i] == all_bits && least[i] == min,
                  "all_reduce of element {}: {}, {}, {}, {}", i, sums[i], most[i], bits[i], least[i]);
  }

  for (const std::int64_t per_rank : {0, 1, 2, 333}) {
    std::vector<std::int64_t> parts(usize(n * per_rank));
    std::vector<float> largest(usize(n * per_rank));
    for (int r = 0; r < n; ++r) {
      for (std::int64_t i = 0; i < per_rank; ++i) {
        parts[usize(r * per_rank + i)] = stamp(me, r, i);
        largest[usize(r * per_rank + i)] = static_cast<float>((me + r + i) % 5);
      }
    }
    std::vector<std::int64_t> sum(usize(per_rank), -1);
    std::vector<float> max(usize(per_rank), -1);
    t.reduce_scatter(parts.data(), sum.data(), per_rank, DType::I64, ReduceOp::Sum);
    t.reduce_scatter(largest.data(), max.data(), per_rank, DType::F32, ReduceOp::Max);
    std::vector<std::int32_t> blocks(usize(n * per_rank), -1);
    for (std::int64_t i = 0; i < per_rank; ++i) blocks[usize(me * per_rank + i)] = stamp(me, 0, i);
    t.all_gather_in_place(blocks.data(), Bytes(per_rank * isize(sizeof(std::int32_t))));
    for (std::int64_t i = 0; i < per_rank; ++i) {
      std::int64_t wanted_sum = 0;
      std::int64_t wanted_max = 0;
      for (int r = 0; r < n; ++r) {
        wanted_sum += stamp(r, me, i);
        wanted_max = std::max(wanted_max, (r + me + i) % 5);
        checks.expect(blocks[usize(r * per_rank + i)] == stamp(r, 0, i), "all_gather_in_place: element {} of rank {}",
                      i, r);
      }
      checks.expect(sum[usize(i)] == wanted_sum && max[usize(i)] == static_cast<float>(wanted_max),
                    "reduce_scatter of element {}: {}, {}", i, sum[usize(i)], max[usize(i)]);
    }
  }

  for (int root = 0; root < n; ++root) {
    std::vector<std::int32_t> message(333, -1);
    if (me == root) {
      for (std::size_t i = 0; i < message.size(); ++i) message[i] = stamp(root, 0, isize(i));
    }
    t.broadcast(message.data(), Bytes(isize(message.size() * sizeof(std::int32_t))), Rank(root));
    for (std::size_t i = 0; i < message.size(); ++i) {
      checks.expect(message[i] == stamp(root, 0, isize(i)), "broadcast from {}: element {} is {}", root, i, message[i]);
    }
  }

  const std::vector<std::byte> mine(usize(length(me, 1)), std::byte(me + 1));
  const auto blocks = t.all_gather(mine);
  checks.expect(isize(blocks.size()) == n, "all_gather gave {} blocks", blocks.size());
  for (int r = 0; r < n; ++r) {
    checks.expect(blocks[usize(r)] == std::vector<std::byte>(usize(length(r, 1)), std::byte(r + 1)),
                  "all_gather's block of rank {} has {} bytes", r, blocks[usize(r)].size());
  }
  t.barrier();
}

void splits(Transport& t, Checks& checks) {
  const int me = t.rank().value();
  const int n = t.size();
  // Odd ranks apart from even ones, in falling order; rank 0 in none.
  auto part = t.split(me == 0 ? -1 : me % 2, -me);
  checks.expect((part == nullptr) == (me == 0), "a negative color gives no transport, any other does");
  if (part) {
    int same = 0;
    int before = 0;
    for (int r = 1; r < n; ++r) {
      same += r % 2 == me % 2 ? 1 : 0;
      before += r % 2 == me % 2 && r > me ? 1 : 0;
    }
    checks.expect(part->size() == same && part->rank() == Rank(before), "rank {} of {}, not {} of {}",
                  part->rank().value(), part->size(), before, same);
    exchanges(*part, checks);
  }
  auto node = t.split_by_node();
  checks.expect(node != nullptr && node->size() >= 1 && node->size() <= n, "the node's transport");
  exchanges(*node, checks);

  std::unique_ptr<Transport> moved = std::move(node);
  checks.expect(moved->size() >= 1, "a moved transport is usable");
}

template <class Work>
std::string message_of(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void refusals(Transport& t, Checks& checks) {
  const int me = t.rank().value();
  std::int64_t value = 0;
  const std::vector<SendPart> too_far = {{Rank(t.size()), &value, Bytes(8)}};
  checks.expect(message_of([&] { t.exchange(too_far, {}); }).find("bytes") != std::string::npos, "a peer out of range");
  const std::vector<SendPart> to_self = {{Rank(me), &value, Bytes(8)}};
  const std::vector<ReceivePart> other_size = {{Rank(me), &value, Bytes(4)}};
  checks.expect(message_of([&] { t.exchange(to_self, other_size); }).find("expects") != std::string::npos,
                "a message to oneself of another size");
  checks.expect(!message_of([&] { t.exchange(to_self, {}); }).empty(), "a message to oneself that nobody receives");
  checks.expect(!message_of([&] { t.exchange({}, other_size); }).empty(), "a message from oneself that nobody sends");
  float number = 0;
  checks.expect(!message_of([&] { t.all_reduce(&number, 1, DType::F32, ReduceOp::BitOr); }).empty(), "bits of a float");
  checks.expect(!message_of([&] { t.all_reduce(&number, 1, DType::BF16, ReduceOp::Sum); }).empty(), "bf16 sums");
  checks.expect(!message_of([&] { t.reduce_scatter(&number, &value, 1, DType::BF16, ReduceOp::Sum); }).empty(),
                "bf16 sums, scattered");
  checks.expect(message_of([&] { Environment second; }).find("one Environment") != std::string::npos,
                "a second Environment");
}

// Planted fault: ranks 0 and 1 do not agree on a size. The receiver must say so, and name the sender. (A message that
// is longer than its place is MPI's own error, after which MPI promises nothing: a job ends there, and no test goes
// on.)
void disagreement(Transport& t, Checks& checks) {
  if (t.size() < 2 || t.rank().value() > 1) return;
  const Rank peer(1 - t.rank().value());
  std::vector<std::int64_t> out(4);
  std::vector<std::int64_t> in(4);
  const std::vector<SendPart> sends = {{peer, out.data(), Bytes(8)}};
  const std::vector<ReceivePart> receives = {{peer, in.data(), Bytes(16)}};
  const std::string message = message_of([&] { t.exchange(sends, receives); });
  checks.expect(message.find(fmt::format("from rank {}", peer.value())) != std::string::npos,
                "a message of another size was taken: \"{}\"", message);
}

// Rank 0 comes to every call only once all others have said that they wait in it. So no call waits unseen: the watchdog
// could not name it, and the time would count as this rank's own work.
void waits(Transport& t, Checks& checks) {
  const int me = t.rank().value();
  const std::unique_ptr<SharedMemory> marks = t.share(Bytes(64));
  std::unique_ptr<SharedMemory> memory;
  std::unique_ptr<Transport> part;
  std::vector<std::int64_t> in(usize(t.size()));
  std::vector<std::int64_t> out(usize(t.size()));
  const std::vector<std::int64_t> ones(usize(t.size()), 1);
  const std::vector<std::pair<const char*, std::function<void()>>> calls = {
      {"exchange",
       [&] {
         std::vector<SendPart> sends;
         std::vector<ReceivePart> receives;
         for (int r = 0; r < t.size(); ++r) {
           sends.push_back({Rank(r), &out[usize(r)], Bytes(8)});
           receives.push_back({Rank(r), &in[usize(r)], Bytes(8)});
         }
         t.exchange(sends, receives);
       }},
      {"all_to_all", [&] { t.all_to_all(out.data(), in.data(), 1); }},
      {"all_to_all_rows", [&] { t.all_to_all_rows(out.data(), ones, in.data(), ones, Bytes(8)); }},
      {"all_reduce", [&] { t.all_reduce(in.data(), t.size(), DType::I64, ReduceOp::Sum); }},
      {"reduce_scatter", [&] { t.reduce_scatter(out.data(), in.data(), 1, DType::I64, ReduceOp::Sum); }},
      {"all_gather_in_place", [&] { t.all_gather_in_place(in.data(), Bytes(8)); }},
      {"all_gather", [&] { t.all_gather(std::as_bytes(std::span(out))); }},
      {"broadcast", [&] { t.broadcast(in.data(), Bytes(8), Rank(0)); }},
      {"barrier", [&] { t.barrier(); }},
      {"share", [&] { memory = t.share(Bytes(4096)); }},
      {"giving shared memory back", [&] { memory = nullptr; }},
      {"split", [&] { part = t.split(0, 0); }},
      {"split_by_node", [&] { part = t.split_by_node(); }},
  };
  const auto mark = [&](int rank) { return std::atomic_ref(*reinterpret_cast<std::int32_t*>(marks->of(Rank(rank)))); };
  mark(me).store(0);
  t.barrier();
  std::int32_t number = 0;
  for (const auto& [name, call] : calls) {
    ++number;
    std::int32_t first = 0;
    if (me == 0) {
      const auto start = std::chrono::steady_clock::now();
      for (int r = 1; r < t.size(); ++r) {
        while (mark(r).load() < number && std::chrono::steady_clock::now() - start < std::chrono::seconds(20)) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        first = std::min(first, mark(r).load() - number);
      }
      call();
    } else {
      const std::jthread watch([&](const std::stop_token& stop) {
        while (!stop.stop_requested() && !what_is_waited_for()) std::this_thread::yield();
        if (!stop.stop_requested()) mark(me).store(number);
      });
      call();
    }
    checks.expect(first == 0, "{}: a rank that waited in it did not say so", name);
    // A rank that said nothing must not be taken for one that waits in the next call.
    t.barrier();
    mark(me).store(number);
    t.barrier();
  }
}

int run() {
  Environment env(Bytes(128));
  Transport& world = env.world().transport();
  Checks checks(env.world());
  exchanges(world, checks);
  collectives(world, checks);
  splits(world, checks);
  refusals(world, checks);
  waits(world, checks);
  const auto alone = make_self_transport();
  exchanges(*alone, checks);
  collectives(*alone, checks);
  splits(*alone, checks);
  const int verdict = checks.finish();

  auto own = world.split(0, 0);
  Checks last(env.world());
  disagreement(*own, last);
  last.expect(true, "");
  return verdict + last.finish();
}

}  // namespace
}  // namespace switchyard::test

int main() {
  return switchyard::test::run();
}
