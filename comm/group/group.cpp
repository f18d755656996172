#include "comm/group/group.h"

#include <cstring>
#include <utility>

namespace switchyard {

Group::Group(std::unique_ptr<Transport> transport) : transport_(std::move(transport)) {
  require(transport_ != nullptr, "a group needs a transport");
}

std::unique_ptr<Group> Group::split(int color, int key) const {
  auto part = transport_->split(color, key);
  return part == nullptr ? nullptr : std::make_unique<Group>(std::move(part));
}

void Group::sum(std::span<double> values) const {
  transport_->all_reduce(values.data(), isize(values.size()), DType::F64, ReduceOp::Sum);
}
void Group::sum(std::span<std::int64_t> values) const {
  transport_->all_reduce(values.data(), isize(values.size()), DType::I64, ReduceOp::Sum);
}
void Group::sum(std::span<std::uint64_t> values) const {
  transport_->all_reduce(values.data(), isize(values.size()), DType::U64, ReduceOp::Sum);
}
void Group::max(std::span<double> values) const {
  transport_->all_reduce(values.data(), isize(values.size()), DType::F64, ReduceOp::Max);
}

bool Group::any(bool mine) const {
  std::int64_t value = mine ? 1 : 0;
  transport_->all_reduce(&value, 1, DType::I64, ReduceOp::Max);
  return value != 0;
}

std::vector<std::string> Group::gather(const std::string& mine) const {
  std::vector<std::string> all;
  for (const auto& block : transport_->all_gather(std::as_bytes(std::span(mine)))) {
    all.emplace_back(reinterpret_cast<const char*>(block.data()), block.size());
  }
  return all;
}

std::vector<std::string> Group::gather_to_root(const std::string& mine) const {
  std::vector<std::int64_t> sizes(usize(size()), 0);
  sizes[usize(rank().value())] = isize(mine.size());
  sum(std::span<std::int64_t>(sizes));
  std::vector<std::string> all;
  std::vector<ReceivePart> receives;
  if (is_root()) {
    for (const std::int64_t bytes : sizes) all.emplace_back(usize(bytes), '\0');
    for (int from = 0; from < size(); ++from) {
      std::string& text = all[usize(from)];
      receives.push_back({Rank(from), text.data(), Bytes(isize(text.size()))});
    }
  }
  const SendPart send{Rank(0), mine.data(), Bytes(isize(mine.size()))};
  transport_->exchange(std::span(&send, 1), receives);
  return all;
}

std::string Group::broadcast(const std::string& value, Rank root) const {
  std::int64_t length = isize(value.size());
  transport_->broadcast(&length, Bytes(sizeof length), root);
  std::string result = rank() == root ? value : std::string(usize(length), '\0');
  transport_->broadcast(result.data(), Bytes(length), root);
  return result;
}

}  // namespace switchyard
