// Columns for people: each as wide as its widest cell, the last one as long as it likes.
#pragma once

#include <string>
#include <vector>

namespace switchyard {

class Table {
 public:
  explicit Table(std::vector<std::string> heads) : rows_{std::move(heads)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace switchyard
