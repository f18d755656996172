// How long a step takes, from those that have been: the measure of what is slow and what hangs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace switchyard {

// The wall times of the last steps, the first of a run left out: it pays for what the others find done (pages of
// memory, connections).
class Pace {
 public:
  void add(double seconds);
  // Have enough steps ended to know what is usual?
  bool known() const { return recent_.size() >= fewest; }
  double usual() const;    // the median; 0 without any
  double longest() const;  // of the last ones; 0 without any

 private:
  static constexpr std::size_t fewest = 3;
  static constexpr std::size_t most = 31;
  bool first_is_over_ = false;
  std::vector<double> recent_;  // a ring
  std::size_t next_ = 0;
};

}  // namespace switchyard
