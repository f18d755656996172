// A group of one rank without MPI: for a program that works alone (generation), and for tests.
#pragma once

#include "comm/transport/transport.h"

#include <memory>

namespace switchyard {

std::unique_ptr<Transport> make_self_transport();

}  // namespace switchyard
