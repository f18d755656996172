// RANKS 2 4
// SLOW_RANKS 1 3 6
// Rows from device to device, straight and by way of nodes of any sizes: the bits of the exchange between CPUs, each
// way of the other's, and exact adjoints; in one piece, in chunks and in rounds, over each transport.
#include "comm/group/environment.h"
#include "layers/moe/row_lane.h"
#include "tests/support/check.h"
#include "tests/support/cuda_device.h"
#include "tests/support/device_values.h"
#include "tests/support/gpu_ranks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <numeric>
#include <random>
#include <string>

namespace switchyard::test {
namespace {

struct Case {
  const char* name;
  std::int64_t rows;  // of each rank; uneven: rank r has rows * (r mod 3) / 2
  bool uneven;
  int slots;      // of a row, at most
  int only_rank;  // -1: any
  std::int64_t width;
};
constexpr Case cases[] = {{"random", 23, false, 4, -1, 8},
                          {"uneven, to odd places", 31, true, 6, -1, 5},
                          {"all to the last rank", 9, false, 2, -2, 3},
                          {"no rows", 0, false, 2, -1, 4}};

struct Format {
  const char* name;
  DType rows = DType::F32;
  Wire wire = Wire::F32;
  PlanOptions options;
};
constexpr Format formats[] = {{.name = "at once", .options = {}},
                              {.name = "3 chunks", .options = {.chunks = 3}},
                              {.name = "rounds of 20", .options = {.max_received_rows = 20}},
                              {.name = "bf16 on the wire", .wire = Wire::BF16, .options = {.chunks = 2}},
                              {.name = "rows of bf16", .rows = DType::BF16, .options = {.chunks = 2}}};

std::int64_t rows_of(const Case& c, int rank) {
  return c.uneven ? c.rows * (rank % 3) / 2 : c.rows;
}

std::vector<Slot> slots_of(const Case& c, int rank, int ranks) {
  std::mt19937 random(static_cast<std::uint32_t>(rank));
  std::vector<Slot> slots;
  for (std::int32_t row = 0; row < rows_of(c, rank); ++row) {
    const int count = static_cast<int>(random() % static_cast<std::uint32_t>(c.slots + 1));
    for (int k = 0; k < count; ++k) {
      const int to = c.only_rank == -2 ? ranks - 1 : static_cast<int>(random() % static_cast<std::uint32_t>(ranks));
      slots.push_back({row, Rank(to), (k * 7 + row) % 101 - 50, static_cast<float>(random() % 1000) / 7.0F});
    }
  }
  std::shuffle(slots.begin(), slots.end(), random);
  return slots;
}

// What an expert makes of a number; or a small integer, for sums that are exact in any order.
enum class Work { Rounds, Integers };
float worked(Work work, float x, const ReceivedSlot& slot, std::int64_t column) {
  if (work == Work::Rounds) return x * (static_cast<float>(slot.tag) + 0.3F) + slot.scalar;
  return static_cast<float>((std::abs(slot.tag) + 3 * column + slot.row) % 7 - 3);
}

struct Carried {
  std::vector<float> received;   // of all pieces
  std::vector<float> rows;       // that came back
  std::vector<float> scalars;    // that came beside them
  double given = 0, gotten = 0;  // <dispatch(x), y> and <x, combine(y)> of this rank
};

struct Lane {
  ExchangeLane& lane;
  DeviceTransport* transport;  // null: on the CPU
  Device& device;
};

// What is in the scratch memory that nobody holds, and in what has been sent, may change at any time.
void disturb(Arena& scratch) {
  const ArenaScope scope(scratch);
  const Tensor room = allocate(scratch, {1 << 14});
  scratch.device().fill(room.raw(), 0x7f, Bytes(room.size() * 4), scratch.device().stream());
}

Tensor first_slots(const PlanPiece& piece, Arena& scratch) {
  std::vector<std::int32_t> first(usize(piece.received_rows() + 1), 0);
  for (const ReceivedSlot& slot : piece.received) ++first[usize(slot.row + 1)];
  std::partial_sum(first.begin(), first.end(), first.begin());
  return upload(scratch, std::span<const std::int32_t>(first));
}

Carried carry(const Lane& on, const Case& c, DType dtype, Numerics numerics, Work work, bool waits = true) {
  const Group& group = on.lane.group();
  const int me = group.rank().value();
  const std::int64_t width = c.width;
  const std::vector<Slot> slots = slots_of(c, me, group.size());
  std::vector<float> x;
  for (std::int64_t i = 0; i < rows_of(c, me) * width; ++i) {
    x.push_back(work == Work::Rounds ? std::sin(static_cast<float>(me * 1000 + i)) : static_cast<float>(i % 7 - 3));
  }

  Arena scratch(on.device, Bytes(1 << 20));
  const ArenaScope scope(scratch);
  Plan plan = on.lane.plan(rows_of(c, me), slots);
  const DeviceTensor rows(on.device, x, {plan.rows, width}, dtype);
  const DeviceTensor into(on.device, {plan.rows, width}, dtype);
  const DeviceTensor scalars_back(on.device, Shape{isize(slots.size())});
  std::deque<DeviceTensor> held;
  Carried carried;
  {
    RowLane lane(on.lane, on.transport, numerics, scratch);
    std::vector<RowLane::Ticket> tickets;
    std::vector<Tensor> received;
    for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
      received.push_back(held.emplace_back(on.device, Shape{plan.pieces[p].received_rows(), width}, dtype).get());
      tickets.push_back(lane.post_dispatch(plan, p, rows, Pass::Forward, received[p]));
      disturb(scratch);
    }
    if (on.transport != nullptr)
      on.device.fill(rows.get().raw(), 0x7f, Bytes(rows.get().size() * size_of(dtype)), on.device.stream());
    for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
      if (waits) lane.wait(tickets[p]);
      const PlanPiece& piece = plan.pieces[p];
      std::vector<float> came(usize(received[p].size()));
      if (dtype == DType::F32) {
        came = host_values<float>(received[p]);
      } else {
        const auto halves = host_values<std::uint16_t>(received[p]);
        for (std::size_t i = 0; i < came.size(); ++i) came[i] = std::bit_cast<float>(std::uint32_t{halves[i]} << 16);
      }
      std::vector<float> out, scalars;
      for (const ReceivedSlot& slot : piece.received) {
        for (std::int64_t col = 0; col < width; ++col) {
          const float at = came[usize(slot.row * width + col)];
          out.push_back(worked(work, at, slot, col));
          carried.given += static_cast<double>(at) * static_cast<double>(out.back());
        }
        scalars.push_back(slot.scalar + static_cast<float>(me));
      }
      carried.received.insert(carried.received.end(), came.begin(), came.end());
      const Tensor back = held.emplace_back(on.device, out, Shape{isize(scalars.size()), width}, dtype).get();
      const Tensor beside = held.emplace_back(on.device, scalars, Shape{isize(scalars.size())}).get();
      lane.post_combine(plan, p, back, first_slots(piece, scratch), Pass::Forward, beside, into, scalars_back);
      disturb(scratch);
    }
    lane.wait_for_all();
  }
  carried.rows = into.values();
  carried.scalars = scalars_back.values();
  for (std::size_t i = 0; i < x.size(); ++i)
    carried.gotten += static_cast<double>(x[i]) * static_cast<double>(carried.rows[i]);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    carried.scalars[i] -= slots[i].scalar + static_cast<float>(slots[i].rank.value());  // each is zero now
  }
  return carried;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

class Test {
 public:
  Test(const Group& world, Device& device, DeviceTransport& transport, Checks& checks)
      : world_(world), device_(device), transport_(transport), checks_(checks) {}

  void check(const std::vector<Node>* nodes, const std::string& name) {
    for (const Format& format : formats) {
      const auto lane = make_lane(nodes, format);
      const auto straight = make_lane(nullptr, format);
      for (const Case& c : cases) check_case(*lane, *straight, c, format, transport_.name() + (", " + name));
    }
  }

  // Planted faults: a wait that is left out, and an entry that passes on rows in another order.
  void check_faults(const std::vector<Node>& nodes) {
    if (std::string(transport_.name()) != "mpi") return;  // NCCL may be done by then
    const auto lane = make_lane(&nodes, formats[0]);
    const Lane on{*lane, &transport_, device_};
    const Carried right = carry(on, cases[0], DType::F32, Numerics::Fast, Work::Rounds);
    const Carried early = carry(on, cases[0], DType::F32, Numerics::Fast, Work::Rounds, /*waits=*/false);
    const bool alone = world_.size() == 1;  // nothing travels
    checks_.expect(alone || right.received.empty() || !same(right.received, early.received),
                   "rows that nobody waited for have come");

    Arena scratch(device_, Bytes(1 << 20));
    const ArenaScope scope(scratch);
    const int me = world_.rank().value();
    Plan plan = lane->plan(rows_of(cases[0], me), slots_of(cases[0], me, world_.size()));
    lane->wait(lane->post_dispatch(plan, 0, nullptr, 0, Pass::Forward, nullptr));
    const PlanPiece& piece = plan.pieces[0];
    DispatchWay way = lane->dispatch_way(piece);
    const std::int64_t passed = way.way.passed;
    std::vector<float> x(usize(plan.rows * cases[0].width));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(me * 10000) + static_cast<float>(i);
    const DeviceTensor rows(device_, x, {plan.rows, cases[0].width});
    const auto received = [&] {
      const DeviceTensor come(device_, Shape{piece.received_rows(), cases[0].width});
      DeviceRows carrier(transport_, world_.size(), scratch);
      carrier.finish(carrier.post_dispatch(piece, way, rows, DType::F32, come));
      return come.values();
    };
    const std::vector<float> before = received();
    std::reverse(way.way.order.begin(), way.way.order.end());
    const bool differs = !same(before, received());
    checks_.expect(world_.any(passed > 1) == world_.any(differs),
                   "an entry that passes on rows in another order is not seen");
  }

 private:
  std::unique_ptr<ExchangeLane> make_lane(const std::vector<Node>* nodes, const Format& format) const {
    const std::vector<Node> one(usize(world_.size()), Node(0));
    const WireFormats wire{format.wire, format.wire, format.wire, format.wire};
    auto exchange = nodes == nullptr ? make_flat_exchange(world_, one) : make_hierarchical_exchange(world_, *nodes);
    return std::make_unique<ExchangeLane>(std::move(exchange), LaneSettings{.wire = wire, .plan = format.options});
  }

  void check_case(ExchangeLane& lane, ExchangeLane& straight, const Case& c, const Format& format,
                  const std::string& name) {
    const auto where = [&](const char* what) { return fmt::format("{}, {}, {}: {}", name, c.name, format.name, what); };
    const Lane here{lane, &transport_, device_};
    const Lane flat{straight, &transport_, device_};
    const Carried singly = carry(here, c, format.rows, Numerics::Reproducible, Work::Rounds);
    if (format.rows == DType::F32) {
      const Carried wanted =
          carry({straight, nullptr, cpu_device()}, c, format.rows, Numerics::Reproducible, Work::Rounds);
      checks_.expect(same(singly.received, wanted.received), "{}", where("rows are not the CPU's"));
      checks_.expect(same(singly.rows, wanted.rows), "{}", where("sums of slots are not the CPU's"));
    }
    const Carried straight_on = carry(flat, c, format.rows, Numerics::Reproducible, Work::Rounds);
    checks_.expect(same(singly.received, straight_on.received), "{}", where("rows are not those that go straight"));
    checks_.expect(same(singly.rows, straight_on.rows), "{}", where("sums of slots are not those that go straight"));
    for (const float wrong : singly.scalars) checks_.expect(wrong == 0, "{}", where("scalars"));

    for (const Numerics numerics : {Numerics::Reproducible, Numerics::Fast}) {
      const Carried exact = carry(here, c, format.rows, numerics, Work::Integers);
      double dots[2] = {exact.given, exact.gotten};
      world_.sum(std::span<double>(dots));
      checks_.expect(dots[0] == dots[1], "{} {} != {}", where("no adjoints,"), dots[0], dots[1]);
      for (const float wrong : exact.scalars) checks_.expect(wrong == 0, "{}", where("scalars of sums"));
    }
  }

  const Group& world_;
  Device& device_;
  DeviceTransport& transport_;
  Checks& checks_;
};

// Nodes of equal sizes, of unequal ones, of one rank, and of ranks that do not follow one another.
std::vector<std::pair<std::string, std::vector<Node>>> node_layouts(int ranks) {
  std::vector<std::pair<std::string, std::vector<Node>>> layouts;
  const auto add = [&](const char* name, auto node_of) {
    std::vector<Node> nodes;
    for (int r = 0; r < ranks; ++r) nodes.emplace_back(node_of(r));
    layouts.emplace_back(name, nodes);
  };
  if (ranks == 1) return layouts;
  add("2 nodes", [&](int r) { return 2 * r / ranks; });
  if (ranks == 2) return layouts;
  add("3 nodes", [&](int r) { return std::min(r, 2); });  // the last has the most
  if (ranks > 3) add("2 nodes in turn", [](int r) { return r % 2; });
  return layouts;
}

int run() {
  Environment env;
  const Group& world = env.world();
  Device& device = cuda_device();
  Checks checks(world);
  for (const auto& transport : device_transports(world, device)) {
    Test test(world, device, *transport, checks);
    const std::vector<Node> one(usize(world.size()), Node(0));
    test.check(nullptr, "straight");
    test.check(&one, "one node");
    for (const auto& [name, nodes] : node_layouts(world.size())) {
      test.check(&nodes, name);
      test.check_faults(nodes);
    }
  }
  return checks.finish();
}

}  // namespace
}  // namespace switchyard::test

int main() {
  return switchyard::test::run();
}
