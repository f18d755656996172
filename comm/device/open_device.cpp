#include "comm/base/nearest.h"
#include "comm/device/device.h"

#include <array>
#include <charconv>
#include <optional>

namespace switchyard {

namespace {

constexpr int any = -1;

// The number in "cuda:N", `any` for "cuda", nothing for "cpu".
std::optional<int> gpu_of(std::string_view name) {
  if (name == "cpu") return std::nullopt;
  if (name == "cuda") return any;
  constexpr std::string_view prefix = "cuda:";
  if (name.starts_with(prefix)) {
    int index = any;
    const char* end = name.data() + name.size();
    const auto [stop, fault] = std::from_chars(name.data() + prefix.size(), end, index);
    if (fault == std::errc() && stop == end && index >= 0) return index;
  }
  fail(ErrorKind::Usage, "there is no device \"{}\"; the names are \"cpu\", \"cuda\" and \"cuda:N\"{}", name,
       did_you_mean(name, std::array<std::string, 2>{"cpu", "cuda"}));
}

}  // namespace

Device& open_device(std::string_view name, int rank_in_node) {
  const std::optional<int> gpu = gpu_of(name);
  if (!gpu) return cpu_device();
  const int count = detail::check_cuda(*gpu == any ? 0 : *gpu);
  return detail::open_cuda(*gpu == any ? rank_in_node % count : *gpu);
}

void check_device(std::string_view name) {
  const std::optional<int> gpu = gpu_of(name);
  if (gpu) detail::check_cuda(*gpu == any ? 0 : *gpu);
}

}  // namespace switchyard
