// Chunks are filled one after the other. Once everything has been given back, several chunks make way for a single one
// of the size that was needed at most: from then on nothing is taken from the device, and nothing is lost at a chunk's
// end.
#include "comm/device/device.h"

#include <algorithm>
#include <vector>

namespace switchyard {

namespace {
constexpr std::int64_t alignment = 64;
constexpr std::int64_t round_up(std::int64_t bytes, std::int64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}
}  // namespace

struct Arena::State {
  Device* device = nullptr;
  std::int64_t unit = 0;       // chunks are multiples of it
  std::vector<Buffer> chunks;  // those after `current` are empty
  std::size_t current = 0;
  std::int64_t offset = 0;  // in the current chunk
  std::int64_t in_use = 0;
  std::int64_t peak = 0;
  std::int64_t moves = 0;

  // Those from `first` on. A GPU gives memory back when all it was given is done, other ranks' part in it too: that is
  // waited for here, where it is seen what is waited for.
  void drop_chunks(std::size_t first) {
    if (first >= chunks.size()) return;
    device->exchange_stream().synchronize();
    device->stream().synchronize();
    chunks.resize(first);
  }
};

Arena::Arena(Device& device, Bytes chunk) : state_(std::make_unique<State>()) {
  require(chunk.value() > 0, "an arena's chunks must have a size, not {} bytes", chunk.value());
  state_->device = &device;
  state_->unit = round_up(chunk.value(), alignment);
}
Arena::~Arena() = default;
Arena::Arena(Arena&&) noexcept = default;
Arena& Arena::operator=(Arena&&) noexcept = default;

void* Arena::take(Bytes bytes) {
  State& s = *state_;
  require(bytes.value() >= 0, "asked an arena for {} bytes", bytes.value());
  const std::int64_t size = std::max(alignment, round_up(bytes.value(), alignment));

  if (s.chunks.empty()) {
    s.chunks.emplace_back(*s.device, Bytes(round_up(std::max(size, s.peak), s.unit)));
    ++s.moves;
    s.current = 0;
    s.offset = 0;
  } else if (s.offset + size > s.chunks[s.current].size().value()) {
    const std::size_t next = s.current + 1;
    if (next == s.chunks.size() || s.chunks[next].size().value() < size) {
      // The chunks from here on are empty and too small: kept, they would add to the most that the process ever holds.
      s.drop_chunks(next);
      s.chunks.emplace_back(*s.device, Bytes(round_up(size, s.unit)));
      ++s.moves;
    }
    s.current = next;
    s.offset = 0;
  }

  auto* memory = static_cast<std::byte*>(s.chunks[s.current].data()) + s.offset;
  s.offset += size;
  s.in_use += size;
  s.peak = std::max(s.peak, s.in_use);
#ifndef NDEBUG
  s.device->fill(memory, 0xff, Bytes(size), s.device->stream());  // as floats: NaN
#endif
  return memory;
}

Arena::Mark Arena::mark() const {
  return {state_->current, state_->offset, state_->in_use};
}

void Arena::release(Mark mark) {
  State& s = *state_;
  require(mark.in_use <= s.in_use, "an arena with {} bytes in use is asked to go back to {}", s.in_use, mark.in_use);
  if (mark.in_use == 0 && s.chunks.size() > 1) {
    s.drop_chunks(0);  // take() makes one of the peak's size
    ++s.moves;
  }
  s.current = mark.in_use == 0 ? 0 : mark.chunk;
  s.offset = mark.in_use == 0 ? 0 : mark.offset;
  s.in_use = mark.in_use;
}

Device& Arena::device() const {
  return *state_->device;
}
Bytes Arena::in_use() const {
  return Bytes(state_->in_use);
}
std::int64_t Arena::moves() const {
  return state_->moves;
}
Bytes Arena::peak() const {
  return Bytes(state_->peak);
}
Bytes Arena::reserved() const {
  std::int64_t total = 0;
  for (const Buffer& chunk : state_->chunks) total += chunk.size().value();
  return Bytes(total);
}

}  // namespace switchyard
