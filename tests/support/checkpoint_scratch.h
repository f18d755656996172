// Checkpoints of a small model on one rank, in a folder that goes with the test, and what is said of them.
#pragma once

#include "tests/support/catch.h"
#include "tests/support/checkpoint_state.h"
#include "tests/support/solo_group.h"
#include "trainer/checkpoint/audit.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace switchyard::test {

namespace fs = std::filesystem;

inline std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// The message of the Error(Data) that `work` throws, or what went otherwise.
template <class Work>
std::string data_error(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.kind() == ErrorKind::Data ? error.what() : std::string("not a Data error: ") + error.what();
  }
  return "no error";
}

inline TestState whole_model(std::uint64_t seed) {
  TestState state(seed);
  state.add_model([](int, int) { return true; }, true);
  return state;
}

// A folder that goes with the test; in memory where the system has such a place, because each save waits for the disk.
struct Scratch {
  fs::path path = make_temporary_folder(fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path());
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { fs::remove_all(path); }

  fs::path save(std::int64_t step, std::int64_t keep = 0) {
    TestState state = whole_model(static_cast<std::uint64_t>(step));
    state.fill();
    return save_checkpoint(solo_group(), path, run_state(step), state.tensors(), keep);
  }
};

inline std::vector<checkpoint::AuditFault> damage_of(const fs::path& folder) {
  return checkpoint::audit_checkpoint(folder).faults;
}

inline std::string load_error(const fs::path& folder, std::uint64_t seed = 1) {
  TestState state = whole_model(seed);
  return data_error([&] { load_tensors(folder, state.tensors()); });
}

inline constexpr const char* replicated_file = "replicated-00000-of-00001.h5";
inline constexpr const char* experts_file = "experts-00000-of-00001.h5";
inline const std::vector<std::string> all_files = {experts_file, "index.h5", "manifest.json", replicated_file};

inline std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace switchyard::test
