// How a window of a flat range of arrays lies in staging memory, and in which messages it travels. Sender and receiver
// work it out alike, from the sizes of the arrays alone.
#pragma once

#include "comm/reduce/flat_arrays.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace switchyard {

// A message of its own from here on, straight from the array's memory: what is smaller costs more as a message than as
// a copy beside its neighbours.
inline constexpr std::int64_t straight_bytes = 1 << 20;

// The elements of one array that lie in the window. Their place is as far past a boundary of 16 bytes as they are in
// their array, so that both can be read in whole vectors.
template <class T>
struct PackedPiece {
  T* elements;
  std::int64_t count;
  std::int64_t place;  // among the window's elements in staging memory; -1: it has none there
  bool straight;
};

template <class T>
class PackedWindow {
 public:
  static constexpr std::int64_t vector = 16 / static_cast<std::int64_t>(sizeof(T));

  // with_straight: do pieces that travel straight have a place in staging memory as well?
  PackedWindow(const FlatArrays<T>& arrays, Range window, bool with_straight) {
    arrays.for_slices(window, [&](T* array, std::int64_t offset, std::int64_t, std::size_t elements) {
      const std::int64_t count = isize(elements);
      const bool straight = count * isize(sizeof(T)) >= straight_bytes;
      std::int64_t place = -1;
      if (with_straight || !straight) {
        place = size_ + offset % vector;
        size_ = round_up(place + count);
      }
      pieces_.push_back({array + offset, count, place, straight});
    });
  }

  const std::vector<PackedPiece<T>>& pieces() const { return pieces_; }
  std::int64_t size() const { return size_; }  // elements of staging memory, in whole vectors
  // The most that a window of so many elements in so many arrays may have.
  static std::int64_t largest_size(std::int64_t elements, std::int64_t arrays) {
    return round_up(elements + arrays * 2 * vector);
  }

  // f(first piece, elements from its place to the end of the last): for each message, in order. A straight piece is
  // one, and so are all that lie between two of them.
  template <class F>
  void for_messages(const F& f) const {
    for (std::size_t i = 0; i < pieces_.size();) {
      const PackedPiece<T>& first = pieces_[i++];
      std::int64_t count = first.count;
      while (!first.straight && i < pieces_.size() && !pieces_[i].straight) {
        count = pieces_[i].place + pieces_[i].count - first.place;
        ++i;
      }
      f(first, count);
    }
  }

 private:
  static std::int64_t round_up(std::int64_t elements) { return (elements + vector - 1) / vector * vector; }

  std::vector<PackedPiece<T>> pieces_;
  std::int64_t size_ = 0;
};

}  // namespace switchyard
