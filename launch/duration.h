// Lengths of time as people and batch systems write them.
#pragma once

#include <string>

namespace switchyard {

// "5400" (seconds), "90s", "30m", "2h", "1d", "1h30m", "30:00" (minutes:seconds), "2:00:00", "1-12:00:00" (days first,
// as Slurm has it) -> seconds. Throws UsageError, beginning with `option`, for anything else, and for no time at all.
double parse_duration(const std::string& option, const std::string& text);

}  // namespace switchyard
