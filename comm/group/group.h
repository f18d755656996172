// An ordered set of ranks that act together.
#pragma once

#include "comm/transport/transport.h"

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

class Group {
 public:
  explicit Group(std::unique_ptr<Transport> transport);

  Rank rank() const { return transport_->rank(); }
  int size() const { return transport_->size(); }
  bool is_root() const { return rank().value() == 0; }
  Transport& transport() const { return *transport_; }

  // Collective. nullopt-like: a negative color gives a null pointer.
  std::unique_ptr<Group> split(int color, int key) const;

  // Sums over ranks, of arrays that have one non-zero contributor an element (or of integers): the same bits whatever
  // the order.
  void sum(std::span<double> values) const;
  void sum(std::span<std::int64_t> values) const;
  void sum(std::span<std::uint64_t> values) const;
  void max(std::span<double> values) const;
  bool any(bool mine) const;  // does it hold on any rank?
  void barrier() const { transport_->barrier(); }
  std::vector<std::string> gather(const std::string& mine) const;          // on every rank, in rank order
  std::vector<std::string> gather_to_root(const std::string& mine) const;  // the same on rank 0; elsewhere nothing
  std::string broadcast(const std::string& value, Rank root) const;

 private:
  std::unique_ptr<Transport> transport_;
};

}  // namespace switchyard
