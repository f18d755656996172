#include "comm/base/nearest.h"
#include "comm/device/device.h"

#include <array>
#include <charconv>

namespace switchyard {

Device& open_device(std::string_view name) {
  if (name == "cpu") return cpu_device();
  if (name == "cuda") return detail::open_cuda(0);
  constexpr std::string_view prefix = "cuda:";
  if (name.starts_with(prefix)) {
    int index = -1;
    const char* end = name.data() + name.size();
    const auto [stop, fault] = std::from_chars(name.data() + prefix.size(), end, index);
    if (fault == std::errc() && stop == end && index >= 0) return detail::open_cuda(index);
  }
  fail(ErrorKind::Usage, "there is no device \"{}\"; the names are \"cpu\", \"cuda\" and \"cuda:N\"{}", name,
       did_you_mean(name, std::array<std::string, 2>{"cpu", "cuda"}));
}

}  // namespace switchyard
