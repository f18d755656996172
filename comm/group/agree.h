// One rank's failure is everyone's (law 6), where it can be foreseen: what may fail on one rank alone (a file, a full
// disk) runs inside collectively().
#pragma once

#include "comm/base/error.h"
#include "comm/group/group.h"

#include <functional>
#include <string>

namespace switchyard {

// Thrown alike on all ranks of a group; what() names the first rank that failed and its host.
class CollectiveError : public Error {
 public:
  using Error::Error;
};

// Runs `work` on this rank, then learns how the others fared. If any rank threw, all ranks throw the same
// CollectiveError with the kind and message of the first that failed. Collective over `group`; `work` itself must not
// communicate.
void collectively(const Group& group, const char* what, const std::function<void()>& work);

// Throws CollectiveError on all ranks, naming two ranks and their values, unless all gave the same `value`.
void require_same(const Group& group, const char* what, const std::string& value);

}  // namespace switchyard
