// What no single key shows: combinations that cannot be, and files that are not there.
#pragma once

#include "trainer/config/load.h"

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// What is known of each key. where: the place of a key's value. sound: is the key's own value all right? A combination
// with a key that has a fault of its own is not looked at, since the other fault explains it.
struct KeyPlaces {
  std::function<std::string(std::string_view path)> where;
  std::function<bool(std::string_view path)> sound;
  std::function<int(std::string_view path)> order;  // what was said last is what a fault points at; 0: a default
};

// Is the device here, and does it do what is asked of it?
void check_device(const Config& config, const KeyPlaces& places, std::vector<ConfigFault>& faults);
void check_combinations(const Config& config, int ranks, const KeyPlaces& places, std::vector<ConfigFault>& faults);
void check_files(const Config& config, const KeyPlaces& places, std::vector<ConfigFault>& faults);

// data.train itself, or the folder of the file that it names.
std::filesystem::path folder_of_data(const std::string& train);

}  // namespace switchyard
