// RANKS 1 2 3 4 5 8
// SLOW_RANKS 6 7 9 10 11 12
// The exchanges against global knowledge: every rank can work out every rank's slots and rows, so each received row,
// each sum and each counted byte has an expected value that was not exchanged. Flat and hierarchical, on nodes of any
// sizes, in one piece, in chunks and in rounds.
#include "comm/exchange/exchange.h"

#include "comm/group/environment.h"
#include "comm/group/topology.h"
#include "tests/support/check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <string>

#include <fmt/core.h>

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

struct Way {  // how things are exchanged
  const char* name;
  PlanOptions options;
  Wire wire = Wire::F32;
};
constexpr Way ways[] = {{"at once", {}},
                        {"3 chunks", {.chunks = 3}},
                        {"rounds of 40", {.chunks = 1, .max_received_rows = 40}},
                        {"bf16", {.chunks = 2}, Wire::BF16},
                        {"int8", {}, Wire::I8}};

class Exchanged {
 public:
  Exchanged(const Case& c, const Way& way, Exchange& exchange, std::uint32_t seed, Checks& checks)
      : case_(c),
        way_(way),
        exchange_(exchange),
        checks_(checks),
        where_(fmt::format("{}, {}, {}", c.name, way.name, exchange.name())),
        me_(exchange.group().rank().value()),
        ranks_(exchange.group().size()),
        rows_(rows_of(c, me_)) {
    for (int r = 0; r < ranks_; ++r) all_slots_.push_back(slots_of(c, r, ranks_, seed));
    plan_ = exchange_.plan(rows_, mine(), way.options);
    std::int64_t row = 0;
    for (const PlanPiece& piece : plan_.pieces) {
      checks_.expect(piece.row_begin == row, "{}: where a piece begins", where_);
      row += piece.send.rows;
      if (way.options.max_received_rows > 0) {
        checks_.expect(piece.received_rows() <= way.options.max_received_rows, "{}: {} rows in a round", where_,
                       piece.received_rows());
      }
    }
    checks_.expect(row == rows_, "{}: {} rows in all pieces", where_, row);
    for (std::int64_t i = 0; i < rows_ * width(); ++i) x_.push_back(value_of(me_, i / width(), i % width()));
  }

  // again: dispatches after the first carry rows only.
  void check_dispatch(bool again) {
    received_.clear();
    for (std::size_t p = 0; p < plan_.pieces.size(); ++p) {
      received_.emplace_back(usize(plan_.pieces[p].received_rows() * width()), NAN);
      exchange_.dispatch(plan_, p, x_.data(), width(), way_.wire, received_[p].data());
    }
    if (again) {
      std::vector<float> second(received_[0].size(), NAN);
      exchange_.dispatch(plan_, 0, x_.data(), width(), way_.wire, second.data());
      checks_.expect(second.empty() || std::memcmp(second.data(), received_[0].data(), second.size() * 4) == 0,
                     "{}: a second dispatch", where_);
    }
    for (int source = 0; source < ranks_; ++source) {
      std::vector<Slot> expected;
      for (const Slot& s : all_slots_[usize(source)]) {
        if (s.rank.value() == me_) expected.push_back(s);
      }
      std::sort(expected.begin(), expected.end(),
                [](const Slot& a, const Slot& b) { return a.row != b.row ? a.row < b.row : a.tag < b.tag; });
      auto next = expected.begin();
      for (std::size_t p = 0; p < plan_.pieces.size(); ++p) {
        const PlanPiece& piece = plan_.pieces[p];
        std::int64_t row = piece.received_row_begin[usize(source)] - 1;
        std::int32_t last = -1;
        for (std::int64_t i = piece.received_slot_begin[usize(source)];
             i < piece.received_slot_begin[usize(source) + 1] && next != expected.end(); ++i, ++next) {
          if (next->row != last) ++row;
          last = next->row;
          const ReceivedSlot& got = piece.received[usize(i)];
          checks_.expect(got.row == row && got.tag == next->tag && got.scalar == next->scalar, "{}: slot {} of rank {}",
                         where_, i, source);
          const std::vector<float> value = coded_row(source, next->row);
          checks_.expect(std::memcmp(&received_[p][usize(got.row * width())], value.data(), value.size() * 4) == 0,
                         "{}: row {} of rank {}", where_, next->row, source);
        }
        checks_.expect(row + 1 == piece.received_row_begin[usize(source) + 1], "{}: rows of rank {}", where_, source);
      }
      checks_.expect(next == expected.end(), "{}: slots of rank {}", where_, source);
    }
  }

  void check_combine_slots(bool with_scalars) {
    std::vector<float> rows(usize(rows_ * width()), NAN);
    std::vector<float> back(mine().size(), NAN);
    for (std::size_t p = 0; p < plan_.pieces.size(); ++p) {
      const PlanPiece& piece = plan_.pieces[p];
      std::vector<float> out(usize(piece.received_slots() * width()));
      std::vector<float> scalars(usize(piece.received_slots()));
      for (std::size_t s = 0; s < piece.received.size(); ++s) {
        const ReceivedSlot& slot = piece.received[s];
        for (std::int64_t col = 0; col < width(); ++col) {
          out[s * usize(width()) + usize(col)] =
              worked(received_[p][usize(slot.row * width() + col)], slot.tag, slot.scalar);
        }
        scalars[s] = slot.scalar * static_cast<float>(slot.tag);
      }
      exchange_.combine_slots(plan_, p, out.data(), width(), way_.wire, with_scalars ? scalars.data() : nullptr,
                              rows.data(), with_scalars ? back.data() : nullptr);
    }
    bool order_matters = false;
    std::vector<Slot> ordered = mine();
    std::sort(ordered.begin(), ordered.end(), [](const Slot& a, const Slot& b) { return a.tag < b.tag; });
    std::vector<float> rising(usize(width()));
    std::vector<float> falling(usize(width()));
    for (std::int64_t row = 0; row < rows_; ++row) {
      const std::vector<float> x = coded_row(me_, row);
      std::fill(rising.begin(), rising.end(), 0.0f);
      std::fill(falling.begin(), falling.end(), 0.0f);
      for (const Slot& s : ordered) {
        if (s.row == row) add_worked(x, s, rising);
      }
      for (auto s = ordered.rbegin(); s != ordered.rend(); ++s) {
        if (s->row == row) add_worked(x, *s, falling);
      }
      checks_.expect(std::memcmp(&rows[usize(row * width())], rising.data(), rising.size() * 4) == 0,
                     "{}: the sum of row {}", where_, row);
      order_matters = order_matters || std::memcmp(falling.data(), rising.data(), rising.size() * 4) != 0;
    }
    // Planted fault: sums in another order would be seen.
    if (case_.most_slots == 40 && way_.wire == Wire::F32) checks_.expect(order_matters, "{}: the order of a sum does not show", where_);
    for (std::size_t i = 0; with_scalars && i < back.size(); ++i) {
      const Slot& s = mine()[i];
      checks_.expect(same_bits(back[i], s.scalar * static_cast<float>(s.tag)), "{}: scalar {}", where_, i);
    }
  }

  // Small integers, whose sums are exact in any order; and the adjoints of both ways back.
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
    std::vector<float> dispatched, y, gathered, z;
    std::vector<float> rows(x.size(), NAN);
    std::vector<float> slot_rows(x.size(), NAN);
    std::vector<float> scalars_back(mine().size(), NAN);
    const auto both_ways = [&](float change) {
      dispatched.clear(), y.clear(), gathered.clear(), z.clear();
      random.seed(static_cast<std::uint32_t>(99 + me_));
      for (std::size_t p = 0; p < plan_.pieces.size(); ++p) {
        const PlanPiece& piece = plan_.pieces[p];
        std::vector<float> part(usize(piece.received_rows() * width()));
        exchange_.dispatch(plan_, p, x.data(), width(), Wire::F32, part.data());
        const std::vector<float> y_part = integers(isize(part.size()));
        std::vector<float> scalars;
        for (const ReceivedSlot& slot : piece.received) scalars.push_back(slot.scalar + static_cast<float>(me_));
        exchange_.combine_rows(plan_, p, y_part.data(), width(), Wire::F32, scalars.data(), rows.data(),
                               scalars_back.data());
        for (const ReceivedSlot& slot : piece.received) {
          gathered.insert(gathered.end(), part.begin() + slot.row * width(), part.begin() + (slot.row + 1) * width());
        }
        std::vector<float> z_part = integers(piece.received_slots() * width());
        const bool spoil = z.empty() && !z_part.empty();
        if (spoil) z_part[0] += change;
        exchange_.combine_slots(plan_, p, z_part.data(), width(), Wire::F32, nullptr, slot_rows.data(), nullptr);
        if (spoil) z_part[0] -= change;
        dispatched.insert(dispatched.end(), part.begin(), part.end());
        y.insert(y.end(), y_part.begin(), y_part.end());
        z.insert(z.end(), z_part.begin(), z_part.end());
      }
    };
    both_ways(0);
    const double left = dot(dispatched, y);
    const double right = dot(x, rows);
    checks_.expect(left == right, "{}: dispatch and combine_rows: {} != {}", where_, left, right);
    const double slots_left = dot(gathered, z);
    const double slots_right = dot(x, slot_rows);
    checks_.expect(slots_left == slots_right, "{}: dispatch and combine_slots: {} != {}", where_, slots_left,
                   slots_right);
    for (std::size_t i = 0; i < mine().size(); ++i) {
      const Slot& s = mine()[i];
      checks_.expect(same_bits(scalars_back[i], s.scalar + static_cast<float>(s.rank.value())), "{}: scalar {}", where_,
                     i);
    }

    // Planted fault: one element that one rank changed on the way shows on all ranks.
    int culprit = -1;
    for (std::int64_t r = 0; r < ranks_ && culprit < 0; ++r) {
      if (group.any(me_ == r && !gathered.empty() && gathered[0] != 0)) culprit = static_cast<int>(r);
    }
    if (culprit < 0) return;
    both_ways(me_ == culprit ? 1.0f : 0.0f);
    checks_.expect(dot(gathered, z) != dot(x, slot_rows), "{}: a changed element went unseen", where_);
  }

 private:
  std::int64_t width() const { return case_.width; }
  const std::vector<Slot>& mine() const { return all_slots_[usize(me_)]; }

  // What arrives of a row, whether it travels or not.
  std::vector<float> coded_row(int rank, std::int64_t row) const {
    std::vector<float> values;
    for (std::int64_t col = 0; col < width(); ++col) values.push_back(value_of(rank, row, col));
    round_row(way_.wire, values.data(), width());
    return values;
  }
  void add_worked(const std::vector<float>& x, const Slot& slot, std::vector<float>& sum) const {
    std::vector<float> out;
    for (const float value : x) out.push_back(worked(value, slot.tag, slot.scalar));
    round_row(way_.wire, out.data(), width());
    for (std::size_t col = 0; col < out.size(); ++col) sum[col] += out[col];
  }

  const Case& case_;
  const Way& way_;
  Exchange& exchange_;
  Checks& checks_;
  std::string where_;
  int me_;
  int ranks_;
  std::int64_t rows_;
  std::vector<std::vector<Slot>> all_slots_;
  Plan plan_;
  std::vector<float> x_;
  std::vector<std::vector<float>> received_;  // by piece
};

// What crosses between nodes is the least that is possible: each row once to each node that wants it.
void check_traffic(Exchange& exchange, const std::vector<Node>& node_of, Checks& checks) {
  const bool hierarchical = std::string(exchange.name()) == "hierarchical";
  const Case c{"traffic", 60, true, 8, true, 0.1, -1, 1024};
  const int me = exchange.group().rank().value();
  const int ranks = exchange.group().size();
  const std::vector<Slot> slots = slots_of(c, me, ranks, 5);
  exchange.take_traffic();
  Plan plan = exchange.plan(rows_of(c, me), slots);
  std::vector<float> rows(usize(rows_of(c, me) * c.width), 1.0f);
  std::vector<float> received(usize(plan.pieces[0].received_rows() * c.width));
  exchange.dispatch(plan, 0, rows.data(), c.width, Wire::F32, received.data());
  const ExchangeTraffic there = exchange.take_traffic();
  exchange.combine_rows(plan, 0, received.data(), c.width, Wire::F32, nullptr, rows.data(), nullptr);
  const ExchangeTraffic back = exchange.take_traffic();

  std::int64_t least[3] = {};  // rows to this rank itself, to others of its node, to other nodes
  std::set<std::pair<int, int>> seen;
  for (const Slot& s : slots) {
    const int to = s.rank.value();
    const int where = to == me ? 0 : node_of[usize(to)] == node_of[usize(me)] ? 1 : 2;
    const int target = where == 2 && hierarchical ? ranks + node_of[usize(to)].value() : to;
    if (seen.insert({s.row, target}).second) ++least[where];
  }
  std::int64_t sums[9] = {least[0],
                          least[1],
                          least[2],
                          there.to_self.rows,
                          there.inside_node.rows,
                          there.across_nodes.rows,
                          there.across_nodes.metadata,
                          back.across_nodes.rows,
                          back.across_nodes.metadata};
  exchange.group().sum(std::span<std::int64_t>(sums));
  const std::int64_t row_bytes = c.width * 4;
  checks.expect(sums[3] == sums[0] * row_bytes, "{}: {} bytes to self, wanted {}", exchange.name(), sums[3],
                sums[0] * row_bytes);
  checks.expect(sums[5] == sums[2] * row_bytes && sums[7] == sums[2] * row_bytes,
                "{}: {} and {} bytes across nodes, wanted {}", exchange.name(), sums[5], sums[7], sums[2] * row_bytes);
  // Inside a node the hierarchical exchange also hands on what came for others from other nodes.
  checks.expect(hierarchical ? sums[4] >= sums[1] * row_bytes : sums[4] == sums[1] * row_bytes,
                "{}: {} bytes inside nodes, wanted {}", exchange.name(), sums[4], sums[1] * row_bytes);
  checks.expect(sums[2] == 0 || static_cast<double>(sums[6]) < 0.03 * static_cast<double>(sums[5]),
                "{}: {} bytes of metadata beside {} of rows", exchange.name(), sums[6], sums[5]);
  checks.expect(there.seconds > 0, "time was taken");
  checks.expect(exchange.take_traffic().to_self.rows == 0, "traffic begins anew");
}

std::vector<Node> nodes_of_sizes(int ranks, std::vector<int> sizes) {
  std::vector<Node> node_of;
  for (int n = 0; isize(node_of.size()) < ranks; ++n) {
    for (int i = 0; i < sizes[usize(n) % sizes.size()] && isize(node_of.size()) < ranks; ++i) node_of.emplace_back(n);
  }
  return node_of;
}

void check_exchange(Exchange& exchange, const std::vector<Node>& node_of, bool all_ways, Checks& checks) {
  for (const Way& way : ways) {
    if (!all_ways && way.wire != Wire::F32) continue;
    for (const Case& c : cases) {
      Exchanged first(c, way, exchange, 1, checks);
      Exchanged second(c, way, exchange, 2, checks);  // two plans in flight at once
      first.check_dispatch(false);
      second.check_dispatch(true);
      first.check_combine_slots(true);
      second.check_combine_slots(false);
      second.check_adjoint();
    }
  }
  check_traffic(exchange, node_of, checks);
}

int run() {
  Environment env;
  const Group& world = env.world();
  Checks checks(world);
  const int ranks = world.size();
  const std::vector<Node> pairs = nodes_of_sizes(ranks, {2});
  check_exchange(*make_flat_exchange(world, pairs), pairs, true, checks);
  std::vector<std::vector<Node>> layouts = {pairs, nodes_of_sizes(ranks, {ranks}), nodes_of_sizes(ranks, {3, 5})};
  if (ranks > 2) layouts.push_back(nodes_of_sizes(ranks, {1}));
  if (ranks > 4) layouts.push_back(nodes_of_sizes(ranks, {4, 3}));
  if (ranks > 3) {  // ranks dealt out to two nodes in turn
    layouts.emplace_back();
    for (int r = 0; r < ranks; ++r) layouts.back().emplace_back(r % 2);
  }
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    check_exchange(*make_hierarchical_exchange(world, layouts[i]), layouts[i], i == 0, checks);
  }

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
