// RANKS 1 2 3 4 8
// The exchange against global knowledge: every rank can work out every rank's slots and rows, so each received row,
// each sum and each counted byte has an expected value that was not exchanged.
#include "comm/exchange/exchange.h"

#include "comm/group/environment.h"
#include "comm/group/topology.h"
#include "tests/support/check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

namespace switchyard::test {
namespace {

struct Case {
  const char* name;
  std::int64_t rows;  // of each rank, before `uneven`
  bool uneven;        // rank r has rows * (r mod 3) / 2
  int most_slots;     // per row: 0 .. most_slots, or exactly so
  bool exactly;
  double masked;  // share of rows without slots
  int only_rank;  // -1: any, 0: all to rank 0, -2: all stay, -3: each row to every rank
  std::int64_t width;
};

constexpr Case cases[] = {
    {"random", 37, false, 4, false, 0.0, -1, 5},
    {"unbalanced and masked", 41, true, 6, false, 0.4, -1, 16},
    {"all to one", 29, false, 2, true, 0.0, 0, 3},
    {"all stay", 17, false, 3, true, 0.0, -2, 8},
    {"each row everywhere", 11, false, 0, true, 0.0, -3, 7},
    {"many slots a row", 9, false, 40, true, 0.0, -1, 4},
    {"no slots", 13, false, 0, true, 1.0, -1, 4},
    {"no rows", 0, false, 2, true, 0.0, -1, 4},
    {"one column", 50, true, 2, true, 0.1, -1, 1},
    {"large enough for threads", 300, true, 2, true, 0.1, -1, 130},
};

std::int64_t rows_of(const Case& c, int rank) {
  return c.uneven ? c.rows * (rank % 3) / 2 : c.rows;
}

// In an order that is neither by row nor by tag; tags are not consecutive and may be negative.
std::vector<Slot> slots_of(const Case& c, int rank, int ranks, std::uint32_t seed) {
  std::mt19937 random(seed * 1000 + static_cast<std::uint32_t>(rank));
  std::vector<Slot> slots;
  for (std::int32_t row = 0; row < rows_of(c, rank); ++row) {
    if (static_cast<double>(random() % 1000) < c.masked * 1000) continue;
    int count = c.exactly ? c.most_slots : static_cast<int>(random() % static_cast<std::uint32_t>(c.most_slots + 1));
    if (c.only_rank == -3) count = ranks;
    for (int k = 0; k < count; ++k) {
      int to = c.only_rank;
      if (c.only_rank == -1) to = static_cast<int>(random() % static_cast<std::uint32_t>(ranks));
      if (c.only_rank == -2) to = rank;
      if (c.only_rank == -3) to = k;
      const auto tag = static_cast<std::int32_t>((k * 7 + row) % 101 - 50);
      slots.push_back({row, Rank(to), tag, static_cast<float>(random() % 1000) / 7.0f});
    }
  }
  std::shuffle(slots.begin(), slots.end(), random);
  return slots;
}

float value_of(int rank, std::int64_t row, std::int64_t column) {
  return std::sin(static_cast<float>(rank * 1000 + row * 17 + column));
}
// What an expert makes of a row: anything that depends on row, tag and gate weight, and whose sums round.
float worked(float x, std::int32_t tag, float scalar) {
  return x * (static_cast<float>(tag) + 0.3f) + scalar;
}

bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

class Exchanged {
 public:
  Exchanged(const Case& c, Exchange& exchange, std::uint32_t seed, Checks& checks)
      : case_(c),
        exchange_(exchange),
        checks_(checks),
        me_(exchange.group().rank().value()),
        ranks_(exchange.group().size()),
        rows_(rows_of(c, me_)) {
    for (int r = 0; r < ranks_; ++r) all_slots_.push_back(slots_of(c, r, ranks_, seed));
    plan_ = exchange_.plan(rows_, mine());
    for (std::int64_t i = 0; i < rows_ * width(); ++i) x_.push_back(value_of(me_, i / width(), i % width()));
  }

  void check_dispatch() {
    std::vector<float> received(usize(plan_.received_rows() * width()), NAN);
    exchange_.dispatch(plan_, x_.data(), width(), received.data());

    std::int64_t slot = 0;
    std::int64_t row = -1;
    for (int source = 0; source < ranks_; ++source) {
      checks_.expect(
          plan_.received_slot_begin[usize(source)] == slot && plan_.received_row_begin[usize(source)] == row + 1,
          "{}: where rank {} begins", case_.name, source);
      std::vector<Slot> expected;
      for (const Slot& s : all_slots_[usize(source)]) {
        if (s.rank.value() == me_) expected.push_back(s);
      }
      std::sort(expected.begin(), expected.end(),
                [](const Slot& a, const Slot& b) { return a.row != b.row ? a.row < b.row : a.tag < b.tag; });
      std::int32_t last = -1;
      for (const Slot& s : expected) {
        if (slot >= plan_.received_slots()) break;
        if (s.row != last) ++row;
        last = s.row;
        const ReceivedSlot& got = plan_.received[usize(slot++)];
        checks_.expect(got.row == row && got.tag == s.tag && got.scalar == s.scalar, "{}: slot {}", case_.name,
                       slot - 1);
        for (std::int64_t col = 0; col < width(); ++col) {
          checks_.expect(same_bits(received[usize(got.row * width() + col)], value_of(source, s.row, col)),
                         "{}: row {} of rank {}, column {}", case_.name, s.row, source, col);
        }
      }
    }
    checks_.expect(slot == plan_.received_slots() && row + 1 == plan_.received_rows(), "{}: {} slots and {} rows came",
                   case_.name, plan_.received_slots(), plan_.received_rows());
    received_ = std::move(received);
  }

  void check_combine_slots(bool with_scalars) {
    std::vector<float> out(usize(plan_.received_slots() * width()));
    std::vector<float> scalars(usize(plan_.received_slots()));
    for (std::size_t s = 0; s < plan_.received.size(); ++s) {
      const ReceivedSlot& slot = plan_.received[s];
      for (std::int64_t col = 0; col < width(); ++col) {
        out[s * usize(width()) + usize(col)] =
            worked(received_[usize(slot.row * width() + col)], slot.tag, slot.scalar);
      }
      scalars[s] = slot.scalar * static_cast<float>(slot.tag);
    }
    std::vector<float> rows(usize(rows_ * width()), NAN);
    std::vector<float> back(mine().size(), NAN);
    exchange_.combine_slots(plan_, out.data(), width(), with_scalars ? scalars.data() : nullptr, rows.data(),
                            with_scalars ? back.data() : nullptr);

    bool order_matters = false;
    std::vector<Slot> ordered = mine();
    std::sort(ordered.begin(), ordered.end(), [](const Slot& a, const Slot& b) { return a.tag < b.tag; });
    for (std::int64_t row = 0; row < rows_; ++row) {
      for (std::int64_t col = 0; col < width(); ++col) {
        const float x = value_of(me_, row, col);
        float rising = 0;
        float falling = 0;
        for (const Slot& s : ordered) {
          if (s.row == row) rising += worked(x, s.tag, s.scalar);
        }
        for (auto s = ordered.rbegin(); s != ordered.rend(); ++s) {
          if (s->row == row) falling += worked(x, s->tag, s->scalar);
        }
        const float got = rows[usize(row * width() + col)];
        checks_.expect(same_bits(got, rising), "{}: row {}, column {}: {} instead of {}", case_.name, row, col, got,
                       rising);
        order_matters = order_matters || !same_bits(rising, falling);
      }
    }
    // Planted fault: sums in another order would be seen.
    if (case_.most_slots == 40) checks_.expect(order_matters, "{}: the order of a sum does not show", case_.name);
    for (std::size_t i = 0; with_scalars && i < back.size(); ++i) {
      const Slot& s = mine()[i];
      checks_.expect(same_bits(back[i], s.scalar * static_cast<float>(s.tag)), "{}: scalar {}", case_.name, i);
    }
  }

  void check_combine_rows() {
    std::vector<float> part(usize(plan_.received_rows() * width()));
    std::vector<float> scalars(usize(plan_.received_slots()));
    const float factor = static_cast<float>(me_) + 0.7f;  // so that each rank's part differs
    for (std::size_t i = 0; i < part.size(); ++i) part[i] = received_[i] * factor;
    for (std::size_t s = 0; s < plan_.received.size(); ++s) scalars[s] = plan_.received[s].scalar + factor;
    std::vector<float> rows(usize(rows_ * width()), NAN);
    std::vector<float> back(mine().size(), NAN);
    exchange_.combine_rows(plan_, part.data(), width(), scalars.data(), rows.data(), back.data());

    for (std::int64_t row = 0; row < rows_; ++row) {
      std::vector<bool> wanted(usize(ranks_), false);
      for (const Slot& s : mine()) {
        if (s.row == row) wanted[usize(s.rank.value())] = true;
      }
      for (std::int64_t col = 0; col < width(); ++col) {
        float sum = 0;
        for (int r = 0; r < ranks_; ++r) {
          if (wanted[usize(r)]) sum += value_of(me_, row, col) * (static_cast<float>(r) + 0.7f);
        }
        checks_.expect(same_bits(rows[usize(row * width() + col)], sum), "{}: row {} over ranks", case_.name, row);
      }
    }
    for (std::size_t i = 0; i < back.size(); ++i) {
      const Slot& s = mine()[i];
      checks_.expect(same_bits(back[i], s.scalar + (static_cast<float>(s.rank.value()) + 0.7f)), "{}: scalar {}",
                     case_.name, i);
    }
  }

  // With small integers all products and sums are exact, and the two sides must be equal.
  void check_adjoint() {
    const Group& group = exchange_.group();
    std::mt19937 random(static_cast<std::uint32_t>(77 + me_));
    const auto integers = [&](std::int64_t count) {
      std::vector<float> values(usize(count));
      for (float& v : values) v = static_cast<float>(static_cast<int>(random() % 7) - 3);
      return values;
    };
    const auto dot = [&](const std::vector<float>& a, const std::vector<float>& b) {
      double sum = 0;
      for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
      group.sum(std::span<double>(&sum, 1));
      return sum;
    };
    const std::vector<float> x = integers(rows_ * width());
    std::vector<float> dispatched(usize(plan_.received_rows() * width()));
    exchange_.dispatch(plan_, x.data(), width(), dispatched.data());

    std::vector<float> y = integers(plan_.received_rows() * width());
    std::vector<float> combined(x.size());
    exchange_.combine_rows(plan_, y.data(), width(), nullptr, combined.data(), nullptr);
    const double left = dot(dispatched, y);
    const double right = dot(x, combined);
    checks_.expect(left == right, "{}: dispatch and combine_rows: {} != {}", case_.name, left, right);

    std::vector<float> gathered;
    for (const ReceivedSlot& slot : plan_.received) {
      gathered.insert(gathered.end(), dispatched.begin() + slot.row * width(),
                      dispatched.begin() + (slot.row + 1) * width());
    }
    std::vector<float> z = integers(plan_.received_slots() * width());
    exchange_.combine_slots(plan_, z.data(), width(), nullptr, combined.data(), nullptr);
    const double slots_left = dot(gathered, z);
    const double slots_right = dot(x, combined);
    checks_.expect(slots_left == slots_right, "{}: dispatch and combine_slots: {} != {}", case_.name, slots_left,
                   slots_right);

    // Planted fault: one element that one rank changed on the way shows on all ranks.
    int culprit = -1;
    for (std::int64_t r = 0; r < ranks_ && culprit < 0; ++r) {
      if (group.any(me_ == r && !gathered.empty() && gathered[0] != 0)) culprit = static_cast<int>(r);
    }
    if (culprit < 0) return;
    if (me_ == culprit) z[0] += 1;
    exchange_.combine_slots(plan_, z.data(), width(), nullptr, combined.data(), nullptr);
    if (me_ == culprit) z[0] -= 1;
    checks_.expect(dot(gathered, z) != dot(x, combined), "{}: a changed element went unseen", case_.name);
  }

 private:
  std::int64_t width() const { return case_.width; }
  const std::vector<Slot>& mine() const { return all_slots_[usize(me_)]; }

  const Case& case_;
  Exchange& exchange_;
  Checks& checks_;
  int me_;
  int ranks_;
  std::int64_t rows_;
  std::vector<std::vector<Slot>> all_slots_;
  Plan plan_;
  std::vector<float> x_;
  std::vector<float> received_;
};

void check_traffic(Exchange& exchange, const std::vector<Node>& node_of, Checks& checks) {
  const Case& c = cases[1];
  const int me = exchange.group().rank().value();
  const int ranks = exchange.group().size();
  exchange.take_traffic();
  const std::vector<Slot> slots = slots_of(c, me, ranks, 5);
  const Plan plan = exchange.plan(rows_of(c, me), slots);
  std::vector<float> rows(usize(rows_of(c, me) * c.width), 1.0f);
  std::vector<float> received(usize(plan.received_rows() * c.width));
  exchange.dispatch(plan, rows.data(), c.width, received.data());
  const ExchangeTraffic traffic = exchange.take_traffic();

  std::int64_t bytes[3] = {};
  for (int r = 0; r < ranks; ++r) {
    std::vector<std::int32_t> distinct;
    std::int64_t count = 0;
    for (const Slot& s : slots) {
      if (s.rank.value() != r) continue;
      ++count;
      distinct.push_back(s.row);
    }
    std::sort(distinct.begin(), distinct.end());
    const std::int64_t unique = std::unique(distinct.begin(), distinct.end()) - distinct.begin();
    const int where = r == me ? 0 : node_of[usize(r)] == node_of[usize(me)] ? 1 : 2;
    bytes[where] += 16 + count * 12 + unique * c.width * 4;
  }
  checks.expect(traffic.bytes_to_self == bytes[0] && traffic.bytes_inside_node == bytes[1] &&
                    traffic.bytes_across_nodes == bytes[2],
                "traffic {} {} {} instead of {} {} {}", traffic.bytes_to_self, traffic.bytes_inside_node,
                traffic.bytes_across_nodes, bytes[0], bytes[1], bytes[2]);
  checks.expect(traffic.seconds > 0, "time was taken");
  checks.expect(exchange.take_traffic().bytes_to_self == 0, "traffic begins anew");
}

int run() {
  Environment env;
  const Group& world = env.world();
  Checks checks(world);
  const std::vector<Node> node_of = force_nodes(world.size(), 2).node_of;
  const auto exchange = make_flat_exchange(world, node_of);
  for (const Case& c : cases) {
    Exchanged first(c, *exchange, 1, checks);
    Exchanged second(c, *exchange, 2, checks);  // two plans in flight at once
    first.check_dispatch();
    second.check_dispatch();
    first.check_combine_slots(true);
    second.check_combine_slots(false);
    second.check_combine_rows();
    first.check_combine_rows();
    first.check_adjoint();
  }
  check_traffic(*exchange, node_of, checks);

  bool refused = false;
  try {
    make_flat_exchange(world, std::vector<Node>(usize(world.size()) + 1));
  } catch (const Error&) {
    refused = true;
  }
  checks.expect(refused, "nodes of another number of ranks");
  return checks.finish();
}

}  // namespace
}  // namespace switchyard::test

int main() {
  return switchyard::test::run();
}
