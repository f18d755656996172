// Stands in for the CUDA backend in a program without one.
#include "comm/device/device.h"

namespace switchyard::detail {

int check_cuda(int index) {
  fail(ErrorKind::Usage,
       "device \"cuda:{}\" was asked for, but this switchyard was built without CUDA; use device \"cpu\"", index);
}

Device& open_cuda(int index) {
  check_cuda(index);
  fail(ErrorKind::Runtime, "there is no CUDA device");
}

}  // namespace switchyard::detail
