// Stands in for the NCCL transport in a build without one.
#include "comm/transport/transport.h"

namespace switchyard {

std::unique_ptr<Transport> open_nccl_transport(Transport&, int device_index) {
  fail(ErrorKind::Usage,
       "NCCL was asked for on GPU {}, but this switchyard was built without NCCL; use the MPI transport", device_index);
}

}  // namespace switchyard
