#include "comm/base/nearest.h"

#include "comm/base/ids.h"

#include <algorithm>
#include <cctype>
#include <vector>

namespace switchyard {
namespace {

char lower(char letter) {
  return static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
}

}  // namespace

std::int64_t edit_distance(std::string_view a, std::string_view b) {
  // Three rows of the table of distances between the beginnings of a and of b ("optimal string alignment").
  std::vector<std::int64_t> before(b.size() + 1), previous(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) previous[j] = isize(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = isize(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = lower(a[i - 1]) == lower(b[j - 1]);
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1])) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
    std::swap(before, previous);
    std::swap(previous, row);
  }
  return previous[b.size()];
}

std::string nearest_name(std::string_view given, std::span<const std::string> candidates) {
  std::string best;
  std::int64_t best_distance = 0;
  for (const std::string& candidate : candidates) {
    const std::int64_t distance = edit_distance(given, candidate);
    const std::int64_t allowed = std::clamp<std::int64_t>(isize(std::max(given.size(), candidate.size())) / 3, 1, 3);
    if (distance <= allowed && (best.empty() || distance < best_distance)) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view given, std::span<const std::string> candidates) {
  const std::string name = nearest_name(given, candidates);
  return name.empty() ? "" : " (did you mean '" + name + "'?)";
}

}  // namespace switchyard
