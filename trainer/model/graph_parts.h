// Halves of layers as graphs, for micro-batches in which the host must learn where slots go: what comes before that and
// after it depends on nothing which the host learns, and its kernels are launched at once.
//
// A graph has the addresses of all that it works on. A part becomes one when it is run the second time in a row with
// the same memory, and is made anew when memory has moved.
#pragma once

#include "comm/device/device.h"
#include "trainer/model/block.h"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>

namespace switchyard {

class GraphParts {
 public:
  // What parts take comes from these two, which outlive this; of `scratch` nothing is kept.
  GraphParts(Arena& arena, Arena& scratch) : arena_(&arena), scratch_(&scratch) {}

  Block::Attended run(std::size_t layer, Block::Part part, const Tensor& on, const Tensor& beside,
                      const std::function<Block::Attended()>& work);
  void forget() { parts_.clear(); }
  std::int64_t launches() const { return launches_; }  // of graphs, since the beginning

 private:
  struct Place {
    const void* on = nullptr;
    const void* beside = nullptr;
    Shape shape;
    Arena::Mark kept, scratch;
    std::array<std::int64_t, 3> moves{};
    bool operator==(const Place&) const = default;
  };
  struct Known {
    Place place;
    std::int64_t taken = 0;  // of the arena
    Block::Attended left;
    std::unique_ptr<WorkGraph> graph;
  };
  Place place_of(const Tensor& on, const Tensor& beside) const;

  Arena* arena_;
  Arena* scratch_;
  std::map<std::pair<std::size_t, Block::Part>, Known> parts_;
  std::int64_t launches_ = 0;
};

}  // namespace switchyard
