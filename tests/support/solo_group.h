// A group of one rank without MPI, for unit tests of what is collective.
#pragma once

#include "comm/group/group.h"
#include "comm/transport/self.h"

namespace switchyard::test {

inline Group solo_group() {
  return Group(make_self_transport());
}

}  // namespace switchyard::test
