// Fuzzing of the check that HDF5 shows what the manifest says, over any bytes that pass for a file of a checkpoint: the
// worst case, since damage is caught by the checksums before HDF5 opens anything.
#include "trainer/checkpoint/hdf5_gate.h"

#include <cstdlib>
#include <fstream>

#include <unistd.h>

using namespace switchyard;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::filesystem::path path = [] {
    std::string name = "/dev/shm/switchyard-fuzz-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    return std::filesystem::path(name) / "file.h5";
  }();
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  static const std::vector<checkpoint::TensorRecord> tensors = [] {
    std::vector<checkpoint::TensorRecord> all(2);
    all[0].path = "/layers/0/experts/1/w_up";
    all[1].path = "/optimizer/layers/0/experts/1/w_up/m/from-2";
    for (checkpoint::TensorRecord& tensor : all) {
      tensor.shape = {2, 3};
      tensor.count = 6;
    }
    all[1].first = 2;
    all[1].count = 4;
    return all;
  }();
  checkpoint::faults_of_view_here(path, {&tensors[0], &tensors[1]});
  return 0;
}
