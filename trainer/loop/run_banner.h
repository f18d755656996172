// What a run's banner says.
#pragma once

#include "trainer/config/config.h"
#include "trainer/loop/layout.h"
#include "trainer/loop/run_data.h"
#include "trainer/monitor/banner.h"

#include <cstdint>
#include <filesystem>

namespace switchyard {

// out: the run's folder. first_step: how many steps have been done.
Banner make_banner(const Config& config, Layout& layout, const RunData& data, const std::filesystem::path& out,
                   std::int64_t first_step);

}  // namespace switchyard
