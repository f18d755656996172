// How much memory this process has used, and how much the machine has left.
#pragma once

#include <cstdint>
#include <string>

namespace switchyard {

// Peak resident set of this process (VmHWM of /proc/self/status), in bytes; 0 where the system does not tell.
std::int64_t peak_memory();
// What may be taken without swapping (MemAvailable of /proc/meminfo), in bytes; 0 where the system does not tell.
std::int64_t available_memory();

// "812 MiB", "3.4 GiB".
std::string size_text(std::int64_t bytes);

}  // namespace switchyard
