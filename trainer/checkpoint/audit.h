// Everything that can be said about a checkpoint's soundness, for `switchyard checkpoint verify`: each file's bytes,
// each tensor's bytes, HDF5's view of both, the index, and what lies there that the manifest does not know.
#pragma once

#include "trainer/checkpoint/manifest.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace switchyard::checkpoint {

struct AuditFault {
  std::string file;
  std::string what;                   // a sentence; the file is named beside it
  std::vector<TensorRecord> tensors;  // that are damaged, or cannot be read any more
};

struct Audit {
  std::optional<Manifest> manifest;    // nothing where it is itself damaged
  std::int64_t bytes = 0;              // of all files listed
  std::vector<AuditFault> faults;      // in the manifest's order of files
  std::vector<std::string> strangers;  // files and folders that the manifest does not list
};

// Files are checked side by side, on as many threads as OpenMP has. `checked`: told the bytes of each file that is
// done, one call at a time.
Audit audit_checkpoint(
    const std::filesystem::path& step_folder, const std::function<void(std::int64_t)>& checked = [](std::int64_t) {});

// "layer 3 experts 1, 17; layer 4 expert 2; embed_tokens.weight": every expert and every other tensor once.
std::string list_damaged(const std::vector<TensorRecord>& tensors);

}  // namespace switchyard::checkpoint
