// RANKS 1 2 3
// SLOW_RANKS 4 8
// Gradient sums and gathers between the memories of devices: the bits of comm/reduce/copies.h, and sums in the order of
// ranks, for any sets of holders.
#include "comm/group/environment.h"
#include "comm/reduce/device_sums.h"
#include "tests/support/check.h"
#include "tests/support/copy_sets.h"
#include "tests/support/cuda_device.h"
#include "tests/support/gpu_ranks.h"

#include <algorithm>
#include <cstring>

namespace switchyard::test {
namespace {

// One rank's arrays of all sets, on the host and on the device. Some begin beside the boundaries of 16 bytes.
template <class T>
class Arrays {
 public:
  Arrays(const Group& world, Device& device, const std::vector<CopiesOfArrays>& sets, int culprit) : device_(device) {
    const int me = world.rank().value();
    for (std::size_t s = 0; s < sets.size(); ++s) {
      ranges.push_back({sets[s].holders, sets[s].parts});
      host.emplace_back();
      on_device.emplace_back();
      values_.emplace_back();
      const bool here = std::binary_search(sets[s].holders.begin(), sets[s].holders.end(), world.rank());
      std::int64_t at = 0;
      for (std::size_t a = 0; here && a < sets[s].sizes.size(); ++a) {
        std::vector<T>& array = values_[s].emplace_back();
        for (std::int64_t i = 0; i < sets[s].sizes[a]; ++i) array.push_back(contribution<T>(me, s, at++));
        if (me == culprit && !array.empty()) array[0] += 1;
        const std::int64_t skipped = (isize(s + a) + me) % 4 == 1 ? 1 : 0;
        buffers_.emplace_back(device, Bytes((isize(array.size()) + skipped) * isize(sizeof(T))));
        const std::span<T> there(static_cast<T*>(buffers_.back().data()) + skipped, array.size());
        device.copy_from_host(there.data(), array.data(), Bytes(isize(there.size_bytes())), device.stream());
        on_device[s].push_back(there);
      }
      for (std::vector<T>& array : values_[s]) host[s].emplace_back(array);
    }
  }

  std::vector<T> back(std::size_t set) const {
    std::vector<T> all;
    for (const std::span<T>& array : on_device[set]) {
      std::vector<T> values(array.size());
      device_.copy_to_host(values.data(), array.data(), Bytes(isize(array.size_bytes())), device_.stream());
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

  std::vector<HeldRange> ranges;
  std::vector<std::vector<std::span<T>>> host, on_device;

 private:
  Device& device_;
  std::vector<std::vector<std::vector<T>>> values_;
  std::vector<Buffer> buffers_;
};

// Elements that this rank has wrong: after the sums those of its parts, against the host's function and the oracle;
// after the gathers all.
template <class T>
std::int64_t differences(const Group& world, Device& device, DeviceTransport& transport,
                         const std::vector<CopiesOfArrays>& sets, Bytes bucket, int culprit = -1) {
  Arrays<T> arrays(world, device, sets, culprit);
  DeviceSums sums(world, transport, device, bucket);
  sums.sum_to_parts(arrays.ranges, arrays.on_device);
  sum_to_parts(world, arrays.ranges, arrays.host, Bytes(1 << 12));
  std::int64_t wrong = 0;
  for (std::size_t s = 0; s < sets.size(); ++s) {
    const auto& holders = sets[s].holders;
    const auto me = std::lower_bound(holders.begin(), holders.end(), world.rank());
    if (me == holders.end() || *me != world.rank()) continue;
    const Range mine = sets[s].parts[usize(me - holders.begin())];
    const std::vector<T> got = arrays.back(s);
    std::vector<T> wanted;
    for (const auto& array : arrays.host[s]) wanted.insert(wanted.end(), array.begin(), array.end());
    for (std::int64_t i = mine.begin; i < mine.end; ++i) {
      wrong += std::memcmp(&got[usize(i)], &wanted[usize(i)], sizeof(T)) == 0 ? 0 : 1;
      wrong += got[usize(i)] == sum_of_contributions<T>(sets[s], s, i) ? 0 : 1;
    }
  }
  sums.gather_from_parts(arrays.ranges, arrays.on_device);
  for (std::size_t s = 0; s < sets.size(); ++s) {
    std::int64_t at = 0;
    for (const T got : arrays.back(s)) wrong += got == sum_of_contributions<T>(sets[s], s, at++) ? 0 : 1;
  }
  return wrong;
}

void check_random_sets(const Group& world, Device& device, DeviceTransport& transport, Checks& checks) {
  std::int64_t seen = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const std::vector<CopiesOfArrays> sets = random_sets(world.size(), seed);
    for (const std::int64_t bucket : {4, 1000, 1 << 20}) {
      if (bucket == 4 && seed > 2) continue;  // an exchange an element
      checks.expect(differences<std::int64_t>(world, device, transport, sets, Bytes(bucket)) == 0,
                    "{}: int64, sets {}, bucket {}", transport.name(), seed, bucket);
      checks.expect(differences<float>(world, device, transport, sets, Bytes(bucket)) == 0,
                    "{}: float, sets {}, bucket {}", transport.name(), seed, bucket);
    }
    // Planted fault: the last rank's contributions are wrong. It may be no holder of some sets, but not of all.
    seen += differences<std::int64_t>(world, device, transport, sets, Bytes(1000), world.size() - 1);
  }
  world.sum(std::span<std::int64_t>(&seen, 1));
  checks.expect(seen > 0, "{}: a wrong contribution went unseen", transport.name());
}

// What all ranks have beside what some have, with arrays that are messages of their own and arrays that are not.
void check_large(const Group& world, Device& device, DeviceTransport& transport, Checks& checks) {
  std::vector<CopiesOfArrays> sets(2);
  for (int r = 0; r < world.size(); ++r) {
    sets[0].holders.emplace_back(r);
    if (r % 2 == 0) sets[1].holders.emplace_back(r);
  }
  sets[0].sizes = {5, (1 << 18) + 3, 77, 1, (3 << 18) + 1, 4096};
  sets[1].sizes = {700'001, 3};
  for (CopiesOfArrays& set : sets) set.parts = cut_at_blocks(set.sizes, 4096, static_cast<int>(set.holders.size()));
  for (const std::int64_t bucket : {1 << 20, 32 << 20}) {
    checks.expect(differences<float>(world, device, transport, sets, Bytes(bucket)) == 0,
                  "{}: large arrays of floats, bucket {}", transport.name(), bucket);
    checks.expect(differences<std::int64_t>(world, device, transport, sets, Bytes(bucket)) == 0,
                  "{}: large arrays of int64, bucket {}", transport.name(), bucket);
  }
  // What was taken stays, and does not grow with the arrays.
  Arrays<float> arrays(world, device, sets, -1);
  DeviceSums sums(world, transport, device, Bytes(1 << 20));
  for (int i = 0; i < 2; ++i) {
    sums.sum_to_parts(arrays.ranges, arrays.on_device);
    checks.expect(sums.memory().value() <= (2 << 20) + 4096, "{} bytes are taken", sums.memory().value());
  }
}

// Planted fault: the shares of a sum in the opposite order give other bits, and the comparison sees it.
void check_order(const Group& world, Checks& checks) {
  if (world.size() < 3) return;
  CopiesOfArrays set;
  for (int r = 0; r < world.size(); ++r) set.holders.emplace_back(r);
  CopiesOfArrays backwards = set;
  std::reverse(backwards.holders.begin(), backwards.holders.end());
  std::int64_t other = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    other += sum_of_contributions<float>(set, 0, i) == sum_of_contributions<float>(backwards, 0, i) ? 0 : 1;
  }
  checks.expect(other > 0, "sums in the opposite order are the same");
}

int run() {
  Environment env;
  const Group& world = env.world();
  Device& device = cuda_device();
  Checks checks(world);
  for (const auto& transport : device_transports(world, device)) {
    check_random_sets(world, device, *transport, checks);
    check_large(world, device, *transport, checks);
  }
  check_order(world, checks);
  return checks.finish();
}

}  // namespace
}  // namespace switchyard::test

int main() {
  return switchyard::test::run();
}
