#include "comm/group/slow_rank.h"

#include <fmt/core.h>

namespace switchyard {
namespace {

constexpr double times_usual = 3;
constexpr double longer_by_s = 1;

std::string seconds_text(double seconds) {
  return fmt::format("{:.{}f} s", seconds, seconds < 1 ? 2 : 1);
}

}  // namespace

std::string slow_step_text(std::int64_t step, const News& news, double usual_s, std::span<const std::string> hosts) {
  const auto named = [&](const News::Most& most) {
    return fmt::format("rank {} on {}", most.rank.value(), hosts[usize(most.rank.value())]);
  };
  const double excess = news.step.seconds - usual_s;
  if (usual_s <= 0 || news.step.seconds <= times_usual * usual_s || excess <= longer_by_s) {
    // A rank may stand still between steps too, while the others evaluate or save.
    if (news.gap.seconds <= longer_by_s) return "";
    return fmt::format("before the end of step {} {} did not run for {}", step, named(news.gap),
                       seconds_text(news.gap.seconds));
  }
  const std::string took =
      fmt::format("step {} took {} (usual {}): ", step, seconds_text(news.step.seconds), seconds_text(usual_s));
  if (news.gap.seconds >= excess / 2) {
    return took + fmt::format("{} did not run for {}", named(news.gap), seconds_text(news.gap.seconds));
  }
  if (news.busy.seconds - news.least_busy_s >= excess / 2) {
    return took + fmt::format("{} computed {} while others waited", named(news.busy), seconds_text(news.busy.seconds));
  }
  if (news.least_busy_s >= excess / 2) {
    return took + fmt::format("every rank computed for {} or more", seconds_text(news.least_busy_s));
  }
  return took + fmt::format("the ranks waited for messages; none computed for longer than {}",
                            seconds_text(news.busy.seconds));
}

}  // namespace switchyard
