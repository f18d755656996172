// How a job ends when something was thrown, in one place for all who catch.
#pragma once

#include <exception>

namespace switchyard {

// What all ranks have found alike (CollectiveError) is told once; what one rank alone has met ends the job on all of
// them (law 6). The code is that of the error.
//
// Called where the error is caught, before any stack is unwound that owns a save under way: its thread may be waiting
// for a disk, and the cause must be heard before that.
[[noreturn]] void end_job_over(const std::exception& error);

}  // namespace switchyard
