// Stands in for the NCCL transport in a program without it.
#include "comm/transport/device_transport.h"

namespace switchyard {

bool has_nccl() {
  return false;
}

std::unique_ptr<DeviceTransport> make_nccl_transport(Transport&, Device&) {
  fail(ErrorKind::Usage,
       "parallel.device_transport = \"nccl\" was asked for, but this switchyard was built without NCCL; use \"mpi\"");
}

}  // namespace switchyard
