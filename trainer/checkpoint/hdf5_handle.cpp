#include "trainer/checkpoint/hdf5_handle.h"

#include <string_view>

namespace switchyard::checkpoint {
namespace {

herr_t keep_innermost(unsigned position, const H5E_error2_t* error, void* text) {
  if (position == 0 && error->desc != nullptr) *static_cast<std::string*>(text) = error->desc;
  return 0;
}

}  // namespace

void quiet_hdf5() {
  static const bool once = (H5dont_atexit(), H5open() >= 0);
  require(once, "the HDF5 library cannot be started");
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

std::string hdf5_cause() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &text);
  // Of a failed system call HDF5 tells everything it knows, file pointers included; the system's reason is enough.
  constexpr std::string_view key = "error message = '";
  const std::size_t begin = text.find(key);
  if (begin != std::string::npos) {
    const std::size_t end = text.find('\'', begin + key.size());
    if (end != std::string::npos) return text.substr(begin + key.size(), end - begin - key.size());
  }
  return text.empty() ? "HDF5 gives no reason" : text;
}

}  // namespace switchyard::checkpoint
