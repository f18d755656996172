// Reads the vectors that tests/golden/make_golden.py wrote.
#pragma once

#include "comm/base/error.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace switchyard::test {

class Golden {
 public:
  explicit Golden(const std::filesystem::path& stem) {
    std::ifstream index(stem.string() + ".json");
    require(index.good(), "no golden vectors at {}", stem.string());
    index_ = nlohmann::json::parse(index);
    std::ifstream data(stem.string() + ".bin", std::ios::binary);
    data_.assign(std::istreambuf_iterator<char>(data), std::istreambuf_iterator<char>());
  }

  std::vector<std::string> config() const { return index_.at("config"); }
  double number(const std::string& name) const { return index_.at(name); }
  bool has(const std::string& name) const { return index_.at("arrays").contains(name); }

  template <class T>
  std::vector<T> array(const std::string& name) const {
    const nlohmann::json& entry = index_.at("arrays").at(name);
    std::size_t size = 1;
    for (const std::size_t dim : entry.at("shape")) size *= dim;
    std::vector<T> values(size);
    std::memcpy(values.data(), data_.data() + entry.at("offset").get<std::size_t>(), size * sizeof(T));
    return values;
  }

 private:
  nlohmann::json index_;
  std::vector<char> data_;
};

}  // namespace switchyard::test
