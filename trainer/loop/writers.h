// Which rank writes which of the tensors that every rank has.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// The rank that writes each item, so that the ranks' bytes come out even: the largest item first, each to the rank that
// has least so far (the lowest of several). sizes: [items] bytes; loads: [ranks] bytes that each writes anyway. A pure
// function: every rank works out the same.
std::vector<int> spread_writers(std::span<const std::int64_t> sizes, std::vector<std::int64_t> loads);

}  // namespace switchyard
