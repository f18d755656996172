// Stands in for the CUDA backend in a build without one.
#include "comm/device/device.h"

namespace switchyard::detail {

Device& open_cuda(int index) {
  fail(ErrorKind::Usage,
       "device \"cuda:{}\" was asked for, but this switchyard was built without CUDA; use device \"cpu\"", index);
}

}  // namespace switchyard::detail
