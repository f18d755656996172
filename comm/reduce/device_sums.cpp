#include "comm/reduce/device_sums.h"

#include "comm/device/work.h"
#include "comm/reduce/held_arrays.h"
#include "comm/reduce/packed_window.h"
#include "comm/reduce/pieces_cuda.h"

#include <algorithm>

namespace switchyard {
namespace {

using Rounds = std::vector<std::vector<HeldWindow>>;

template <class T>
Bytes bytes_of(std::int64_t elements) {
  return Bytes(elements * isize(sizeof(T)));
}

// The grouped exchange of a round as it is put together: messages, and the copies that go before or after them.
template <class T>
struct GroupedExchange {
  std::vector<SendPart> sends;
  std::vector<ReceivePart> receives;
  std::vector<cuda::CopiedPiece> copies;

  // The messages of a window that has been packed at `staging`.
  void send(const PackedWindow<T>& window, const T* staging, Rank to) {
    window.for_messages([&](const PackedPiece<T>& first, std::int64_t count) {
      sends.push_back({to, first.straight ? first.elements : staging + first.place, bytes_of<T>(count)});
    });
  }
  void pack(const PackedWindow<T>& window, T* staging) {
    for (const PackedPiece<T>& piece : window.pieces()) {
      if (!piece.straight) {
        copies.push_back({staging + piece.place, piece.elements, bytes_of<T>(piece.count).value()});
      }
    }
  }
  void unpack(const PackedWindow<T>& window, const T* staging) {
    for (const PackedPiece<T>& piece : window.pieces()) {
      if (!piece.straight) {
        copies.push_back({piece.elements, staging + piece.place, bytes_of<T>(piece.count).value()});
      }
    }
  }
};

// f(set, window) for those of a round that this rank is a holder of.
template <class T, class F>
void for_mine(const std::vector<HeldArrays<T>>& held, const std::vector<HeldWindow>& round, const F& f) {
  for (const HeldWindow& window : round) {
    if (held[window.set].me >= 0) f(held[window.set], window);
  }
}

// The three kinds of work, as they are recorded.
void copy_all(Device& device, std::span<const cuda::CopiedPiece> pieces) {
  double bytes = 0;
  for (const cuda::CopiedPiece& piece : pieces) bytes += 2 * static_cast<double>(piece.bytes);
  const DeviceWork work(device, "copy_pieces", {.bytes = bytes});
  cuda::copy_pieces(device, pieces);
}
template <class T>
void sum_all(Device& device, std::span<const cuda::SummedPiece<T>> pieces) {
  double bytes = 0;
  for (const auto& piece : pieces) bytes += static_cast<double>(piece.count * (piece.holders + 1) * isize(sizeof(T)));
  const DeviceWork work(device, "sum_pieces", {.bytes = bytes});
  cuda::sum_pieces(device, pieces);
}
void exchange_all(DeviceTransport& transport, Device& device, std::span<const SendPart> sends,
                  std::span<const ReceivePart> receives) {
  double bytes = 0;
  for (const SendPart& part : sends) bytes += static_cast<double>(part.size.value());
  for (const ReceivePart& part : receives) bytes += static_cast<double>(part.size.value());
  const DeviceWork work(device, "parameter exchange", {.bytes = bytes});
  transport.exchange(sends, receives);
}

void grow(Buffer& memory, Device& device, Bytes bytes) {
  if (memory.size() >= bytes) return;
  device.stream().synchronize();  // what has been asked for before may be in use
  memory = Buffer();              // first: never two of them
  memory = Buffer(device, bytes);
}

}  // namespace

DeviceSums::DeviceSums(const Group& group, DeviceTransport& transport, Device& device, Bytes bucket)
    : group_(group), transport_(transport), device_(device), bucket_(bucket) {}

// For the largest round: what comes from the others, and what is packed for them.
template <class T>
void DeviceSums::make_room(const Rounds& rounds, const std::vector<HeldArrays<T>>& held) {
  std::int64_t most_in = 0;
  std::int64_t most_out = 0;
  for (const std::vector<HeldWindow>& round : rounds) {
    std::int64_t in = 0;
    std::int64_t out = 0;
    for_mine(held, round, [&](const HeldArrays<T>& set, const HeldWindow& window) {
      const auto size_of_window = [&](int h) {
        const Range range = set.window(h, window);
        return PackedWindow<T>::largest_size(range.size(), set.arrays.slices_in(range));
      };
      std::int64_t others = 0;
      set.for_others([&](int h, Rank) { others += size_of_window(h); });
      const std::int64_t own = size_of_window(set.me);
      // A gather sends its own and gets the others'; a sum gets its own from each and sends theirs.
      in += std::max(own * set.others(), others);
      out += std::max(own, others);
    });
    most_in = std::max(most_in, in);
    most_out = std::max(most_out, out);
  }
  grow(incoming_, device_, bytes_of<T>(most_in));
  grow(outgoing_, device_, bytes_of<T>(most_out));
}

template <class T>
void DeviceSums::sum(std::span<const HeldRange> sets, std::span<const std::vector<std::span<T>>> arrays) {
  const auto held = held_arrays<T>(group_.rank(), sets, arrays);
  const Rounds rounds = plan_rounds(group_.size(), sets, std::max(bucket_.value() / isize(sizeof(T)), std::int64_t{1}));
  make_room(rounds, held);
  for (const std::vector<HeldWindow>& round : rounds) {
    GroupedExchange<T> exchange;
    std::vector<cuda::SummedPiece<T>> sums;
    T* out = static_cast<T*>(outgoing_.data());
    T* in = static_cast<T*>(incoming_.data());
    for_mine(held, round, [&](const HeldArrays<T>& set, const HeldWindow& window) {
      const PackedWindow<T> own(set.arrays, set.window(set.me, window), /*with_straight=*/true);
      for (const PackedPiece<T>& piece : own.pieces()) {
        sums.push_back({piece.elements, in + piece.place, own.size(), piece.count, set.others() + 1, set.me});
      }
      set.for_others([&](int h, Rank peer) {
        const PackedWindow<T> theirs(set.arrays, set.window(h, window), /*with_straight=*/false);
        exchange.pack(theirs, out);
        exchange.send(theirs, out, peer);
        out += theirs.size();
        own.for_messages([&](const PackedPiece<T>& first, std::int64_t count) {
          exchange.receives.push_back({peer, in + first.place, bytes_of<T>(count)});
        });
        in += own.size();
      });
    });
    copy_all(device_, exchange.copies);
    exchange_all(transport_, device_, exchange.sends, exchange.receives);
    sum_all<T>(device_, sums);
  }
}

template <class T>
void DeviceSums::gather(std::span<const HeldRange> sets, std::span<const std::vector<std::span<T>>> arrays) {
  const auto held = held_arrays<T>(group_.rank(), sets, arrays);
  const Rounds rounds = plan_rounds(group_.size(), sets, std::max(bucket_.value() / isize(sizeof(T)), std::int64_t{1}));
  make_room(rounds, held);
  for (const std::vector<HeldWindow>& round : rounds) {
    GroupedExchange<T> before;
    GroupedExchange<T> after;
    T* out = static_cast<T*>(outgoing_.data());
    T* in = static_cast<T*>(incoming_.data());
    for_mine(held, round, [&](const HeldArrays<T>& set, const HeldWindow& window) {
      const PackedWindow<T> own(set.arrays, set.window(set.me, window), /*with_straight=*/false);
      before.pack(own, out);
      set.for_others([&](int h, Rank peer) {
        before.send(own, out, peer);
        const PackedWindow<T> theirs(set.arrays, set.window(h, window), /*with_straight=*/false);
        theirs.for_messages([&](const PackedPiece<T>& first, std::int64_t count) {
          before.receives.push_back({peer, first.straight ? first.elements : in + first.place, bytes_of<T>(count)});
        });
        after.unpack(theirs, in);
        in += theirs.size();
      });
      out += own.size();
    });
    copy_all(device_, before.copies);
    exchange_all(transport_, device_, before.sends, before.receives);
    copy_all(device_, after.copies);
  }
}

void DeviceSums::sum_to_parts(std::span<const HeldRange> sets, std::span<const Integers> arrays) {
  sum<std::int64_t>(sets, arrays);
}
void DeviceSums::sum_to_parts(std::span<const HeldRange> sets, std::span<const Floats> arrays) {
  sum<float>(sets, arrays);
}
void DeviceSums::gather_from_parts(std::span<const HeldRange> sets, std::span<const Integers> arrays) {
  gather<std::int64_t>(sets, arrays);
}
void DeviceSums::gather_from_parts(std::span<const HeldRange> sets, std::span<const Floats> arrays) {
  gather<float>(sets, arrays);
}

}  // namespace switchyard
