// The name that someone meant, for messages about a name that does not exist.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace switchyard {

// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other; letter case counts as
// nothing.
std::int64_t edit_distance(std::string_view a, std::string_view b);

// The candidate with the smallest distance, the first of several; empty where none is near enough to be a misspelling
// (a distance of a third of the longer name, at least one and at most three).
std::string nearest_name(std::string_view given, std::span<const std::string> candidates);

// " (did you mean 'top_k'?)", or nothing.
std::string did_you_mean(std::string_view given, std::span<const std::string> candidates);

}  // namespace switchyard
