#include "trainer/loop/failure.h"

#include "comm/group/agree.h"
#include "comm/group/environment.h"

#include <new>

namespace switchyard {

void end_job_over(const std::exception& error) {
  if (const auto* everyones = dynamic_cast<const CollectiveError*>(&error)) {
    end_job(everyones->what(), everyones->exit_code(), true);
  }
  if (const auto* own = dynamic_cast<const Error*>(&error)) end_job(own->what(), own->exit_code(), false);
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    end_job("out of memory: a smaller train.micro_batch or model.seq_len, or more ranks, need less of it", 1, false);
  }
  end_job(error.what(), 1, false);
}

}  // namespace switchyard
