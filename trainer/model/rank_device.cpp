#include "trainer/model/rank_device.h"

#include "comm/group/agree.h"

#include <cstdlib>
#include <map>
#include <optional>
#include <utility>

#include <fmt/core.h>
#include <unistd.h>

namespace switchyard {
namespace {

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof(name) - 1);
  return name;
}

// Two ranks of the world that have one GPU, if there are any.
std::optional<std::pair<int, int>> ranks_that_share(const Group& group, const Device& device) {
  const std::vector<std::string> all = group.gather(host_name() + " " + device.identity());
  std::map<std::string, int> seen;
  for (std::size_t r = 0; r < all.size(); ++r) {
    const int rank = group.transport().world_rank(Rank(static_cast<int>(r)));
    const auto [place, is_new] = seen.emplace(all[r], rank);
    if (!is_new) return std::pair(place->second, rank);
  }
  return std::nullopt;
}

}  // namespace

std::unique_ptr<DeviceTransport> make_device_transport(const Group& group, Device& device, const std::string& wanted) {
  if (device.kind() == DeviceKind::Cpu) return nullptr;
  const auto staged = [&] { return make_staged_transport(group.transport(), device); };
  if (wanted == "mpi" || group.size() == 1) return staged();
  const auto shared = ranks_that_share(group, device);
  if (wanted == "auto") return has_nccl() && !shared ? make_nccl_transport(group.transport(), device) : staged();
  if (shared && std::getenv("NCCL_HOSTID") == nullptr) {
    throw CollectiveError(
        ErrorKind::Usage,
        fmt::format("ranks {} and {} share a GPU, which NCCL does not do: give every rank its own, or say "
                    "parallel.device_transport = \"mpi\" (for tests: a different NCCL_HOSTID for each rank)",
                    shared->first, shared->second));
  }
  return make_nccl_transport(group.transport(), device);
}

}  // namespace switchyard
