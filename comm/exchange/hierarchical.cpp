// The plan: what comes to a node, what of it to each rank, and of what a row's sum is made.
#include "comm/exchange/hierarchical.h"

#include "comm/exchange/announce.h"
#include "comm/exchange/rounds.h"
#include "comm/group/fault_point.h"

#include <algorithm>
#include <utility>

namespace switchyard::hierarchical {

Plan HierarchicalExchange::plan(std::int64_t rows, std::span<const Slot> slots, const PlanOptions& options) {
  const ExchangeTimer timer(traffic_.seconds);
  Plan plan;
  plan.rows = rows;
  const std::vector<std::int64_t> begins = cut_rows(group_, rows, slots, options, plan.in_rounds);
  std::vector<SendPlan> sends = plan_sends_of_parts(begins, ranks(), slots);
  const std::size_t pieces = sends.size();

  // For every rank, what it gets of this one's rows, and what it gets as the entry of its node.
  struct Counts {
    SendCounts owner;
    BlockCounts block;
  };
  static_assert(sizeof(Counts) == 4 * sizeof(std::int64_t));
  std::vector<Counts> counts(usize(ranks()) * pieces);
  std::vector<Counts> theirs(counts.size());
  std::vector<std::shared_ptr<Route>> routes;
  std::vector<ReceivedSlot> announced;
  for (std::size_t p = 0; p < pieces; ++p) {
    routes.push_back(std::make_shared<Route>());
    announce(sends[p], slots, announced);
    routes[p]->own.assign(announced.begin() + sends[p].slot_begin[usize(self().value())],
                          announced.begin() + sends[p].slot_begin[usize(self().value()) + 1]);
    for (int n = 0; n < places_.nodes(); ++n) {
      routes[p]->out.push_back(make_block(sends[p], announced, places_, self(), n));
      if (n == places_.my_node()) continue;
      counts[usize(places_.entry(self(), n).value()) * pieces + p].block = routes[p]->out.back().counts();
    }
    for (int r = 0; r < ranks(); ++r) {
      counts[usize(r) * pieces + p].owner = {count_of(sends[p].row_begin, Rank(r)),
                                             count_of(sends[p].slot_begin, Rank(r))};
    }
  }
  for (int r = 0; r < ranks(); ++r) {
    ExchangeBytes& bytes = Rank(r) == self()  ? traffic_.to_self
                           : is_near(Rank(r)) ? traffic_.inside_node
                                              : traffic_.across_nodes;
    bytes.metadata += isize(pieces * sizeof(Counts));
  }
  if (take_planted_miscount()) {
    Counts& wrong = counts[usize((self().value() + 1) % ranks()) * pieces];
    wrong.owner.rows += 1;
  }
  group_.transport().all_to_all(&counts.front().owner.rows, &theirs.front().owner.rows, 4 * isize(pieces));

  for (std::size_t p = 0; p < pieces; ++p) {
    PlanPiece& piece = plan.pieces.emplace_back();
    piece.row_begin = begins[p];
    piece.send = std::move(sends[p]);
    piece.received_row_begin.assign(usize(ranks()) + 1, 0);
    piece.received_slot_begin.assign(usize(ranks()) + 1, 0);
    routes[p]->in.resize(usize(ranks()));
    for (std::size_t r = 0; r < usize(ranks()); ++r) {
      const Counts& count = theirs[r * pieces + p];
      check_counts(named(Rank(static_cast<int>(r))), named(self()), count.owner);
      check_counts(named(Rank(static_cast<int>(r))), named(self()), {count.block.rows, count.block.slots});
      piece.received_row_begin[r + 1] = piece.received_row_begin[r] + count.owner.rows;
      piece.received_slot_begin[r + 1] = piece.received_slot_begin[r] + count.owner.slots;
      routes[p]->in[r] = count.block;
    }
    routes[p]->in[usize(self().value())] = routes[p]->out[usize(places_.my_node())].counts();
    checked_int(piece.received_slots(), "the number of slots that came to this rank");
  }
  tell_the_node(plan.pieces, routes);
  for (std::size_t p = 0; p < pieces; ++p) {
    find_sums(plan.pieces[p], *routes[p]);
    plan.pieces[p].route = routes[p];
  }
  return plan;
}

// Every rank of the node learns of every block that comes to the node, and of what the others receive.
void HierarchicalExchange::tell_the_node(std::vector<PlanPiece>& pieces, std::vector<std::shared_ptr<Route>>& routes) {
  const std::size_t all = usize(ranks());
  const std::size_t size = 2 * all + 2 * (all + 1);  // of one piece
  std::vector<std::int64_t> told(usize(places_.local_ranks()) * pieces.size() * size, 0);
  std::int64_t* mine = told.data() + usize(places_.my_place()) * pieces.size() * size;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    for (std::size_t r = 0; r < all; ++r) {
      *mine++ = routes[p]->in[r].rows;
      *mine++ = routes[p]->in[r].slots;
    }
    mine = std::copy(pieces[p].received_row_begin.begin(), pieces[p].received_row_begin.end(), mine);
    mine = std::copy(pieces[p].received_slot_begin.begin(), pieces[p].received_slot_begin.end(), mine);
  }
  node_->transport().all_gather_in_place(told.data(), Bytes(isize(pieces.size() * size * sizeof(std::int64_t))));

  const std::int64_t* from = told.data();
  for (int place = 0; place < places_.local_ranks(); ++place) {
    for (std::size_t p = 0; p < pieces.size(); ++p) {
      Route& route = *routes[p];
      for (std::size_t r = 0; r < all; ++r, from += 2) {
        if (places_.entry_place(Rank(static_cast<int>(r))) == place) route.in[r] = {from[0], from[1]};
      }
      route.row_begin.emplace_back(from, from + all + 1);
      from += all + 1;
      route.slot_begin.emplace_back(from, from + all + 1);
      from += all + 1;
    }
  }
}

// Of what the sums of this rank's rows are made, in ascending rank inside the node and then in ascending node.
void HierarchicalExchange::find_sums(const PlanPiece& piece, Route& route) const {
  const SendPlan& send = piece.send;
  std::vector<int> owner(send.row_index.size());
  for (int r = 0; r < ranks(); ++r) {
    std::fill(owner.begin() + send.row_begin[usize(r)], owner.begin() + send.row_begin[usize(r) + 1], r);
  }
  route.near.begin.assign(1, 0);
  for (std::int64_t row = 0; row < send.rows; ++row) {
    for (std::int64_t i = send.row_copies_begin[usize(row)]; i < send.row_copies_begin[usize(row) + 1]; ++i) {
      const std::int32_t position = send.row_copies[usize(i)];
      const Rank rank(owner[usize(position)]);
      if (!is_near(rank)) continue;
      route.near.from.push_back(
          {places_.place(rank), position - static_cast<std::int32_t>(send.row_begin[usize(rank.value())])});
    }
    route.near.begin.push_back(isize(route.near.from.size()));
  }
  route.far.resize(usize(places_.nodes()));
  for (int n = 0; n < places_.nodes(); ++n) {
    if (n == places_.my_node()) continue;
    route.far[usize(n)].assign(usize(send.rows), -1);
    const std::vector<std::int32_t>& rows = route.out[usize(n)].rows;
    for (std::size_t i = 0; i < rows.size(); ++i) route.far[usize(n)][usize(rows[i])] = static_cast<std::int32_t>(i);
  }
}

}  // namespace switchyard::hierarchical

namespace switchyard {

std::unique_ptr<Exchange> make_hierarchical_exchange(const Group& group, std::vector<Node> node_of) {
  require(isize(node_of.size()) == group.size(), "an exchange over {} ranks was given the nodes of {}", group.size(),
          node_of.size());
  NodePlaces places(std::move(node_of), group.rank());
  std::unique_ptr<Group> node = group.split(places.my_node(), group.rank().value());
  auto memory = std::make_unique<NodeMemory>(*node, group.size());
  if (group.any(!memory->is_shared())) return nullptr;
  return std::make_unique<hierarchical::HierarchicalExchange>(group, std::move(places), std::move(node),
                                                              std::move(memory));
}

}  // namespace switchyard
