#include "trainer/checkpoint/hdf5_gate.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/files.h"
#include "trainer/checkpoint/hdf5_file.h"

#include <algorithm>
#include <cerrno>
#include <sstream>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace switchyard::checkpoint {
namespace {

// Every part of the path is a hard link: H5Dopen itself would follow soft and external ones.
bool is_behind_hard_links(hid_t file, const std::string& path) {
  for (std::size_t slash = 0; slash != std::string::npos;) {
    slash = path.find('/', slash + 1);
    H5L_info_t link;
    if (H5Lget_info(file, path.substr(0, slash).c_str(), &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD) {
      return false;
    }
  }
  return true;
}

bool has_shape(hid_t space, const TensorRecord& tensor) {
  hsize_t dims[H5S_MAX_RANK];
  if (H5Sget_simple_extent_type(space) != H5S_SIMPLE) return false;
  const int rank = H5Sget_simple_extent_dims(space, dims, nullptr);
  if (!tensor.whole()) return rank == 1 && dims[0] == static_cast<hsize_t>(tensor.count);
  return rank == static_cast<int>(tensor.shape.size()) &&
         std::equal(tensor.shape.begin(), tensor.shape.end(), dims,
                    [](std::int64_t wanted, hsize_t found) { return static_cast<hsize_t>(wanted) == found; });
}

// What stands against the dataset, or nothing.
const char* objection(hid_t dataset, const TensorRecord& tensor) {
  const Hdf5Handle creation(H5Dget_create_plist(dataset), H5Pclose);
  if (!creation || H5Pget_layout(creation.get()) != H5D_CONTIGUOUS) return "its layout is not contiguous";
  if (H5Pget_external_count(creation.get()) != 0) return "its data lies in another file";
  if (H5Pget_nfilters(creation.get()) != 0) return "it has a filter";
  const Hdf5Handle type(H5Dget_type(dataset), H5Tclose);
  if (!type || H5Tequal(type.get(), H5T_IEEE_F32LE) <= 0) return "its type is not little-endian float32";
  const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
  if (!space || !has_shape(space.get(), tensor)) return "its shape is not the manifest's";
  if (H5Dget_offset(dataset) != static_cast<haddr_t>(tensor.offset)) return "it is not where the manifest says";
  if (H5Dget_storage_size(dataset) != static_cast<hsize_t>(tensor.bytes())) return "its size is not that of its shape";
  return nullptr;
}

std::string fault_of_tensor(hid_t file, const TensorRecord& tensor) {
  if (!is_behind_hard_links(file, tensor.path)) return "is not there as plain groups and a dataset";
  const Hdf5Handle dataset(H5Dopen2(file, tensor.path.c_str(), H5P_DEFAULT), H5Dclose);
  if (!dataset) return "HDF5 cannot open it: " + hdf5_cause();
  const char* const fault = objection(dataset.get(), tensor);
  return fault == nullptr ? std::string() : fault;
}

std::string fault_of_link(hid_t index, const TensorRecord& tensor) {
  const std::size_t name = tensor.path.rfind('/');
  if (name > 0 && !is_behind_hard_links(index, tensor.path.substr(0, name))) return "is not there behind plain groups";
  H5L_info_t link;
  const char* const path = tensor.path.c_str();
  if (H5Lget_info(index, path, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_EXTERNAL) return "is no external link";
  std::vector<char> value(link.u.val_size);
  const char* file = nullptr;
  const char* object = nullptr;
  unsigned flags = 0;
  if (H5Lget_val(index, path, value.data(), value.size(), H5P_DEFAULT) < 0 ||
      H5Lunpack_elink_val(value.data(), value.size(), &flags, &file, &object) < 0) {
    return "HDF5 cannot read the link: " + hdf5_cause();
  }
  if (file != tensor.file || object != tensor.path) return fmt::format("leads to {} in {}", object, file);
  return {};
}

using FaultOf = std::string (*)(hid_t, const TensorRecord&);

std::vector<ViewFault> faults_here(const std::filesystem::path& file, const std::vector<const TensorRecord*>& tensors,
                                   FaultOf fault_of) {
  std::vector<ViewFault> faults;
  try {
    const Hdf5Handle handle = open_hdf5_file(file);
    for (const TensorRecord* tensor : tensors) {
      const std::string fault = fault_of(handle.get(), *tensor);
      if (!fault.empty()) faults.push_back({tensor, fault});
    }
  } catch (const Error& error) {
    faults.push_back({nullptr, error.what()});
  }
  return faults;
}

// A fault travels as "NUMBER TEXT\n", -1 for the file as a whole.
std::string to_lines(const std::vector<ViewFault>& faults, const std::vector<const TensorRecord*>& tensors) {
  std::string lines;
  for (const ViewFault& fault : faults) {
    const auto at = std::find(tensors.begin(), tensors.end(), fault.tensor);
    std::string text = fault.what;
    std::replace(text.begin(), text.end(), '\n', ' ');
    lines += fmt::format("{} {}\n", fault.tensor == nullptr ? -1 : at - tensors.begin(), text);
  }
  return lines;
}

// In a process of its own, with a bound on what it may take: what a forged file makes of HDF5, a crash or a loop
// without end, is then one more thing that is wrong with the file.
std::vector<ViewFault> faults_in_child(const std::filesystem::path& file,
                                       const std::vector<const TensorRecord*>& tensors, FaultOf fault_of) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail_errno(ErrorKind::Runtime, "cannot check", file);
  const FileDescriptor read_end(ends[0]);
  FileDescriptor write_end(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) fail_errno(ErrorKind::Runtime, "cannot start a process to check", file);
  if (child == 0) {
    constexpr rlim_t most_seconds = 600;  // of computing; reading structures takes milliseconds
    const struct rlimit limit { most_seconds, most_seconds };
    ::setrlimit(RLIMIT_CPU, &limit);
    const struct rlimit none { 0, 0 };
    ::setrlimit(RLIMIT_CORE, &none);
    std::string lines = "done\n";
    try {
      lines = to_lines(faults_here(file, tensors, fault_of), tensors) + lines;
    } catch (const std::exception& error) {
      lines = fmt::format("-1 {}\n{}", error.what(), lines);
    }
    for (std::string_view rest = lines; !rest.empty();) {
      const ssize_t written = ::write(write_end.get(), rest.data(), rest.size());
      if (written < 0 && errno != EINTR) ::_exit(1);
      if (written > 0) rest.remove_prefix(static_cast<std::size_t>(written));
    }
    ::_exit(0);
  }
  write_end = FileDescriptor();
  std::string text;
  char piece[4096];
  for (ssize_t got = 1; got > 0 || (got < 0 && errno == EINTR);) {
    got = ::read(read_end.get(), piece, sizeof piece);
    if (got > 0) text.append(piece, static_cast<std::size_t>(got));
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  std::vector<ViewFault> faults;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line == "done") return faults;
    std::int64_t number = -1;
    std::istringstream words(line);
    words >> number;
    const bool known = number >= 0 && number < isize(tensors.size());
    faults.push_back(
        {known ? tensors[usize(number)] : nullptr, line.substr(std::min(line.find(' ') + 1, line.size()))});
  }
  faults.push_back({nullptr, WIFSIGNALED(status) ? fmt::format("HDF5 breaks on it (signal {})", WTERMSIG(status))
                                                 : std::string("HDF5 breaks on it")});
  return faults;
}

}  // namespace

std::vector<ViewFault> faults_of_view(const std::filesystem::path& file,
                                      const std::vector<const TensorRecord*>& tensors) {
  return faults_in_child(file, tensors, fault_of_tensor);
}

std::vector<ViewFault> faults_of_view_here(const std::filesystem::path& file,
                                           const std::vector<const TensorRecord*>& tensors) {
  return faults_here(file, tensors, fault_of_tensor);
}

std::vector<ViewFault> faults_of_index(const std::filesystem::path& index, const std::vector<TensorRecord>& tensors) {
  std::vector<const TensorRecord*> all;
  for (const TensorRecord& tensor : tensors) all.push_back(&tensor);
  return faults_in_child(index, all, fault_of_link);
}

}  // namespace switchyard::checkpoint
