#include "launch/duration.h"

#include "launch/cli.h"

#include <array>
#include <cctype>
#include <optional>
#include <string_view>
#include <utility>

namespace switchyard {
namespace {

constexpr int most_digits = 9;

// Takes the whole number that `rest` begins with.
std::optional<double> take_number(std::string_view& rest) {
  double value = 0;
  std::size_t digits = 0;
  while (digits < rest.size() && std::isdigit(static_cast<unsigned char>(rest[digits])) != 0) {
    value = value * 10 + (rest[digits++] - '0');
  }
  rest.remove_prefix(digits);
  if (digits == 0 || digits > most_digits) return std::nullopt;
  return value;
}

// "1h30m": units in falling order, each at most once.
std::optional<double> with_units(std::string_view rest) {
  constexpr std::array<std::pair<char, double>, 4> units{{{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}}};
  double seconds = 0;
  auto unit = units.begin();
  while (!rest.empty()) {
    const auto number = take_number(rest);
    if (!number || rest.empty()) return std::nullopt;
    while (unit != units.end() && unit->first != rest.front()) ++unit;
    if (unit == units.end()) return std::nullopt;
    seconds += *number * unit->second;
    ++unit;
    rest.remove_prefix(1);
  }
  return seconds;
}

// "[[D-]H:]M:S", where what follows a colon has two digits and stays below 60.
std::optional<double> with_colons(std::string_view rest) {
  double days = 0;
  if (const std::size_t dash = rest.find('-'); dash != std::string_view::npos) {
    std::string_view before = rest.substr(0, dash);
    const auto number = take_number(before);
    if (!number || !before.empty()) return std::nullopt;
    days = *number;
    rest.remove_prefix(dash + 1);
  }
  const auto first = take_number(rest);
  if (!first) return std::nullopt;
  double seconds = *first;
  int colons = 0;
  for (; !rest.empty() && colons < 2; ++colons) {
    if (rest.front() != ':' || rest.size() < 3) return std::nullopt;
    std::string_view two = rest.substr(1, 2);
    const auto number = take_number(two);
    if (!number || !two.empty() || *number >= 60) return std::nullopt;
    seconds = seconds * 60 + *number;
    rest.remove_prefix(3);
  }
  if (!rest.empty() || colons == 0 || (days > 0 && colons < 2)) return std::nullopt;
  return days * 86400 + seconds;
}

std::optional<double> plain(std::string_view rest) {
  const auto number = take_number(rest);
  return rest.empty() ? number : std::nullopt;
}

}  // namespace

double parse_duration(const std::string& option, const std::string& text) {
  std::optional<double> seconds = plain(text);
  if (!seconds) seconds = text.find(':') != std::string::npos ? with_colons(text) : with_units(text);
  if (!seconds || text.empty()) {
    throw UsageError(
        fmt::format("{} {}: not a length of time, such as 5400 (seconds), 90s, 30m, 1h30m, 2:00:00 or "
                    "1-12:00:00 (days first)",
                    option, text));
  }
  if (*seconds <= 0) throw UsageError(fmt::format("{} {}: no time at all", option, text));
  return *seconds;
}

}  // namespace switchyard
