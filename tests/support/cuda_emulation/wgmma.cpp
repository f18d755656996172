#include "tests/support/cuda_emulation/emulation.h"
#include "tests/support/cuda_emulation/races.h"
#include "tests/support/cuda_emulation/wgmma_emulated.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include <cuda_bf16.h>

namespace cuda_emulation {
namespace {

constexpr unsigned max_threads = 1024;
constexpr unsigned unit = 16;  // bytes: shared memory is written and named in these

struct Given {
  Wgmma product;
  std::source_location place;
};
struct Sums {
  float* c;
  std::vector<float> values;  // what they hold when all that was waited for is added
};
struct ThreadState {
  std::vector<std::vector<Given>> groups{1};  // the last is open
  std::vector<Sums> sums;                     // those of products under way
  bool fenced = false;
  std::size_t given = 0;               // since the block began
  std::vector<std::uint32_t> to_show;  // units that this thread has written since its last fence
};

// What is known of the block that runs now.
struct BlockState {
  std::uint64_t serial = std::numeric_limits<std::uint64_t>::max();
  std::vector<ThreadState> threads;
  // Of each unit: 0, or 1 + the thread that wrote it and has not fenced since; `landing` more while a copy is under
  // way.
  std::vector<std::uint16_t> hidden;
  // What the warps of a warpgroup give, in order.
  std::vector<std::vector<Wgmma>> of_warpgroup;
};
constexpr std::uint16_t landing = 0x8000;

BlockState& block() {
  static BlockState state;
  if (state.serial != block_serial()) {
    state.serial = block_serial();
    state.threads.assign(threads_of_block(), {});
    state.hidden.assign((dynamic_shared_bytes() + unit - 1) / unit, 0);
    state.of_warpgroup.assign(max_threads / 128, {});
  }
  return state;
}
ThreadState& mine() {
  return block().threads[thread_number()];
}

const char* base() {
  return static_cast<const char*>(dynamic_shared());
}
// The unit in which an address lies; -1 outside the dynamic shared memory.
std::int64_t unit_of(const void* address) {
  const std::ptrdiff_t offset = static_cast<const char*>(address) - base();
  return offset < 0 || offset >= static_cast<std::ptrdiff_t>(dynamic_shared_bytes()) ? -1 : offset / unit;
}

template <class F>
void for_units(const void* to, std::size_t bytes, const F& f) {
  for (std::size_t i = 0; i < bytes; i += unit) {
    if (const std::int64_t u = unit_of(static_cast<const char*>(to) + i); u >= 0) f(static_cast<std::uint32_t>(u));
  }
}

bool reads_plainly() {
  const char* const fault = std::getenv("CUDA_EMULATION_FAULT");
  return fault != nullptr && std::string_view(fault) == "wgmma";
}

// A matrix as its descriptor gives it: the PTX ISA's "Matrix Descriptor Format" and the canonical layouts of its
// "Strides".
class Matrix {
 public:
  Matrix(const WgmmaOperand& operand, const std::source_location& place)
      : by_positions_(operand.by_positions), plainly_(reads_plainly()), place_(place) {
    const std::uint64_t bits = operand.descriptor;
    const auto field = [&](unsigned first, unsigned count) {
      return static_cast<std::uint32_t>(bits >> first & ((1U << count) - 1));
    };
    start_ = field(0, 14) * 16;
    leading_ = field(16, 14) * 16;
    stride_ = field(32, 14) * 16;
    if (field(62, 2) != 1 || field(49, 3) != 0) {
      fail_in_kernel("a wgmma descriptor is not of the swizzle of 128 bytes without an offset", place);
    }
    // Patterns repeat after 1024 bytes, of which a step of 16 positions by lines begins inside the first row.
    const std::uint32_t inside = start_ % 1024;
    if (by_positions_ ? inside != 0 : inside >= 128 || inside % 32 != 0) {
      fail_in_kernel("a wgmma descriptor begins where no pattern of the swizzle does", place);
    }
    if (stride_ % 1024 != 0 || (by_positions_ && leading_ % 1024 != 0)) {
      fail_in_kernel("a wgmma descriptor's strides are no multiples of 1024 bytes", place);
    }
  }

  // Element (line, position) of 16 positions, and its neighbours in a unit of eight.
  const char* at(unsigned line, unsigned position) const {
    std::uint32_t address = start_;
    if (by_positions_) {
      address += line % 64 * 2 + line / 64 * leading_ + position % 8 * 128 + position / 8 * stride_;
    } else {
      address += line % 8 * 128 + line / 8 * stride_ + position * 2;
    }
    if (!plainly_) address ^= (address >> 7 & 7) << 4;
    const std::uint32_t offset = (address - shared_address(base_)) & 0x3ffffU;
    if (offset + 2 > bytes_) fail_in_kernel("wgmma reads outside the block's shared memory", place_);
    return base_ + offset;
  }
  // to[position * lines + line], for `lines` lines from `first` on.
  void read(unsigned first, unsigned lines, float* to) const {
    for_units_of(lines, [&](unsigned line, unsigned position) {
      unsigned short bits[8];
      std::memcpy(bits, at(first + line, position), sizeof bits);
      for (unsigned e = 0; e < 8; ++e) {
        float& value = to[(position + (by_positions_ ? 0 : e)) * lines + line + (by_positions_ ? e : 0)];
        value = __bfloat162float(__ushort_as_bfloat16(bits[e]));
      }
    });
  }

  void check_shown(unsigned lines) const {
    for_units_of(lines, [&](unsigned line, unsigned position) {
      const std::uint16_t by = block().hidden[static_cast<std::size_t>(unit_of(at(line, position)))];
      if (by >= landing) fail_in_kernel("wgmma is given memory to which a copy is under way", place_);
      if (by != 0) fail_in_kernel("wgmma is given memory that was written without a fence.proxy.async since", place_);
    });
  }

 private:
  // f(line, position) where the units begin.
  template <class F>
  void for_units_of(unsigned lines, const F& f) const {
    for (unsigned line = 0; line < lines; line += by_positions_ ? 8 : 1) {
      for (unsigned position = 0; position < 16; position += by_positions_ ? 1 : 8) f(line, position);
    }
  }

  const char* base_ = base();
  std::size_t bytes_ = dynamic_shared_bytes();
  bool by_positions_, plainly_;
  std::uint32_t start_, leading_, stride_;
  std::source_location place_;
};

bool same(const Wgmma& a, const Wgmma& b) {
  return a.n == b.n && a.a.descriptor == b.a.descriptor && a.b.descriptor == b.b.descriptor &&
         a.a.by_positions == b.a.by_positions && a.b.by_positions == b.b.by_positions;
}

// The sums c of a thread, to which products are under way.
std::vector<Sums>::iterator find(ThreadState& state, const float* c) {
  return std::find_if(state.sums.begin(), state.sums.end(), [&](const Sums& sums) { return sums.c == c; });
}

// Adds one product of a whole warp to its threads' sums.
void add_product(ThreadState* warp, std::size_t group_index, unsigned warp_in_group) {
  const Given given = warp[0].groups.front()[group_index];
  const Matrix a(given.product.a, given.place), b(given.product.b, given.place);
  const unsigned n = given.product.n;
  std::vector<float> left(16 * 16), right(16 * n), sums(16 * n);  // [position][line]; [row][column]
  a.read(warp_in_group * 16, 16, left.data());
  b.read(0, n, right.data());
  const auto for_lanes = [&](const auto& f) {  // f(a sum of a thread, the same in the matrix)
    for (unsigned lane = 0; lane < warp_size; ++lane) {
      const unsigned g = lane / 4, t = lane % 4;
      std::vector<float>& of_lane = find(warp[lane], warp[lane].groups.front()[group_index].product.c)->values;
      for (unsigned i = 0; i < n / 2; ++i) f(of_lane[i], sums[(g + i / 2 % 2 * 8) * n + i / 4 * 8 + 2 * t + i % 2]);
    }
  };
  for_lanes([](float value, float& sum) { sum = value; });
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned k = 0; k < 16; ++k) {  // in ascending order
      const float factor = left[k * 16 + row];
      for (unsigned j = 0; j < n; ++j) sums[row * n + j] = std::fma(factor, right[k * n + j], sums[row * n + j]);
    }
  }
  for_lanes([](float& value, float sum) { value = sum; });
}

// The first group of each of a warp's threads has come to its end.
void end_group(ThreadState* warp, unsigned warp_in_group, const std::source_location& place) {
  const std::size_t products = warp[0].groups.front().size();
  for (unsigned lane = 1; lane < warp_size; ++lane) {
    if (warp[lane].groups.front().size() != products) {
      fail_in_kernel("the lanes of a warp have given different numbers of products to wgmma", place);
    }
  }
  for (std::size_t i = 0; i < products; ++i) add_product(warp, i, warp_in_group);
  for (unsigned lane = 0; lane < warp_size; ++lane) {
    ThreadState& state = warp[lane];
    state.groups.erase(state.groups.begin());
    std::erase_if(state.sums, [&](const Sums& sums) {
      for (const auto& group : state.groups) {
        for (const Given& later : group) {
          if (later.product.c == sums.c) return false;
        }
      }
      const auto* const bytes = reinterpret_cast<const unsigned char*>(sums.c);
      const std::size_t size = sums.values.size() * sizeof(float);
      if (std::any_of(bytes, bytes + size, [](unsigned char byte) { return byte != 0xff; })) {
        fail_in_kernel("sums were written to while wgmma worked on them", place);
      }
      std::memcpy(sums.c, sums.values.data(), size);
      return true;
    });
  }
}

}  // namespace

std::uint32_t shared_address(const void* in_shared) {
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(in_shared) & 0x3ffffU);
}

void begins_to_write_shared(const void* to, std::size_t bytes) {
  const auto by = static_cast<std::uint16_t>(1 + thread_number());
  for_units(to, bytes, [&](std::uint32_t u) { block().hidden[u] = by | landing; });
}

void wrote_shared(const void* to, std::size_t bytes) {
  const auto by = static_cast<std::uint16_t>(1 + thread_number());
  ThreadState& state = mine();
  for_units(to, bytes, [&](std::uint32_t u) {
    block().hidden[u] = by;
    state.to_show.push_back(u);
  });
}

void fence_async_proxy() {
  const auto by = static_cast<std::uint16_t>(1 + thread_number());
  ThreadState& state = mine();
  for (const std::uint32_t u : state.to_show) {
    if (block().hidden[u] == by) block().hidden[u] = 0;
  }
  state.to_show.clear();
}

void wgmma_fence() {
  mine().fenced = true;
}

void wgmma(const Wgmma& product, const std::source_location& place) {
  const races::NotLookedAt emulation;  // one thread does the work of its warpgroup
  const unsigned number = thread_number();
  ThreadState& state = mine();
  if (threads_of_block() % 128 != 0) fail_in_kernel("wgmma wants whole warpgroups", place);
  if (!state.fenced) fail_in_kernel("wgmma works on sums that were touched without a wgmma.fence since", place);
  std::vector<Wgmma>& others = block().of_warpgroup[number / 128];
  if (state.given < others.size()) {
    if (!same(others[state.given], product)) {
      fail_in_kernel("the threads of a warpgroup give different products to wgmma", place);
    }
  } else {
    others.push_back(product);
  }
  ++state.given;
  if (number % warp_size == 0) {  // the same for all
    Matrix(product.a, place).check_shown(64);
    Matrix(product.b, place).check_shown(product.n);
  }
  if (find(state, product.c) == state.sums.end()) {
    state.sums.push_back({product.c, {product.c, product.c + product.n / 2}});
    std::memset(product.c, 0xff, product.n / 2 * sizeof(float));
  }
  state.groups.back().push_back({product, place});
}

void wgmma_commit() {
  mine().groups.emplace_back();
}

void wgmma_wait(unsigned pending, const std::source_location& place) {
  const races::NotLookedAt emulation;  // one thread does the work of its warpgroup
  const char nothing = 0;
  warp_gather(&nothing, place);  // all lanes have given what they give
  const unsigned first = thread_number() / warp_size * warp_size;
  ThreadState* const warp = &block().threads[first];
  mine().fenced = false;
  while (mine().groups.size() > pending + 1) end_group(warp, first % 128 / warp_size, place);
}

}  // namespace cuda_emulation
