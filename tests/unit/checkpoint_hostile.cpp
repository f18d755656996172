// HDF5 files whose size and hash are right and whose content leads elsewhere: other programs would follow it, and so
// verify tells it. Loading does not look at HDF5's structures at all.
#include "tests/support/catch.h"
#include "tests/support/checkpoint_state.h"
#include "trainer/checkpoint/audit.h"
#include "trainer/checkpoint/hdf5_gate.h"
#include "trainer/checkpoint/hdf5_handle.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/names.h"
#include "trainer/checkpoint/shard_reader.h"

#include <fstream>
#include <functional>

namespace fs = std::filesystem;

namespace switchyard::test {
namespace {

using checkpoint::Hdf5Handle;

constexpr hsize_t dims[2] = {3, 5};
constexpr const char* file_name = "experts-00000-of-00001.h5";
constexpr const char* path = "/layers/0/experts/1/w_gate";

// Makes what a file has in place of the dataset, given the file and its group /layers/0/experts/1; gives the place of
// its data that the manifest shall name.
using Make = std::function<std::int64_t(hid_t, hid_t)>;

Hdf5Handle dataset_properties() {
  Hdf5Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY);
  return properties;
}

// A dataset of 15 numbers 0, 1, ...; gives its place in the file.
std::int64_t make_dataset(hid_t where, const char* name, hid_t type, hid_t properties,
                          std::vector<hsize_t> shape = {3, 5}) {
  const Hdf5Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
  const Hdf5Handle dataset(H5Dcreate2(where, name, type, space.get(), H5P_DEFAULT, properties, H5P_DEFAULT), H5Dclose);
  std::vector<float> values(1000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  REQUIRE(H5Dwrite(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) >= 0);
  const haddr_t offset = H5Dget_offset(dataset.get());
  return offset == HADDR_UNDEF ? 0 : static_cast<std::int64_t>(offset);
}

struct Forged {
  fs::path folder = make_temporary_folder(fs::temp_directory_path());
  Forged() = default;
  Forged(const Forged&) = delete;
  Forged& operator=(const Forged&) = delete;
  ~Forged() { fs::remove_all(folder); }

  // What verify says of a checkpoint whose only file is this one; "" when it finds nothing.
  std::string verify(const Make& make) {
    checkpoint::quiet_hdf5();
    checkpoint::TensorRecord tensor{
        "layers.0.experts.1.w_gate", StateKind::Weight, {0, 1}, {3, 5}, 0, 15, file_name, path, 0, 0};
    {
      const Hdf5Handle file(H5Fcreate((folder / file_name).c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
      const Hdf5Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
      H5Pset_create_intermediate_group(links.get(), 1);
      const Hdf5Handle group(H5Gcreate2(file.get(), "/layers/0/experts/1", links.get(), H5P_DEFAULT, H5P_DEFAULT),
                             H5Gclose);
      make_dataset(file.get(), "other", H5T_IEEE_F32LE, dataset_properties().get());
      tensor.offset = make(file.get(), group.get());
    }
    float values[15];
    for (int i = 0; i < 15; ++i) values[i] = static_cast<float>(i);
    tensor.hash = checkpoint::hash64(values, sizeof values);
    // Padding, so that the manifest's own arithmetic has nothing to object to.
    std::ofstream(folder / file_name, std::ios::binary | std::ios::app) << std::string(4096, '\0');
    const auto file = checkpoint::open_plain_file(folder / file_name);
    const checkpoint::FileRecord record{file_name, checkpoint::size_of_file(file, folder / file_name),
                                        checkpoint::hash128_of_file(file, folder / file_name), 0};
    std::ofstream(folder / checkpoint::manifest_name)
        << checkpoint::to_text(checkpoint::Manifest{run_state(1), 1, {record}, {tensor}});
    // Loading goes by the manifest's places and hashes: it is refused, or gives what was hashed.
    float loaded[15] = {};
    bool refused = false;
    try {
      checkpoint::read_shard(folder, record, {{&tensor, 0, 15, loaded}}, /*whole=*/false);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::Data);
      refused = true;
    }
    CHECK((refused || std::memcmp(loaded, values, sizeof values) == 0));

    const std::vector<checkpoint::AuditFault> damaged = checkpoint::audit_checkpoint(folder).faults;
    const std::vector<checkpoint::ViewFault> faults = checkpoint::faults_of_view(folder / file_name, {&tensor});
    CHECK(damaged.size() == (refused || !faults.empty() ? 1 : 0));
    if (damaged.empty()) return "";
    CHECK(damaged[0].file == file_name);
    CHECK(checkpoint::list_damaged(damaged[0].tensors) == "layer 0 expert 1");
    return faults.empty() ? damaged[0].what : faults[0].what;
  }
};

using Catch::Matchers::Contains;

TEST_CASE("a handle has one owner") {
  checkpoint::quiet_hdf5();
  const auto make = [] { return H5Screate(H5S_SCALAR); };
  const hid_t first = make();
  const hid_t second = make();
  {
    Hdf5Handle a(first, H5Sclose);
    Hdf5Handle b(std::move(a));
    CHECK_FALSE(bool(a));
    CHECK(b.get() == first);
    Hdf5Handle c(second, H5Sclose);
    c = std::move(b);  // what c had is closed, what b had lives on
    CHECK(H5Iis_valid(second) == 0);
    CHECK(H5Iis_valid(first) == 1);
    Hdf5Handle& same = c;
    c = std::move(same);
    CHECK(c.get() == first);
  }
  CHECK(H5Iis_valid(first) == 0);
  Hdf5Handle closed(make(), H5Sclose);
  CHECK(closed.close());
  CHECK(closed.close());  // nothing left to do
  Hdf5Handle stale(first, H5Sclose);
  CHECK_FALSE(stale.close());  // HDF5's refusal is heard
}

TEST_CASE("an honest file made by other hands is read") {
  Forged forged;
  CHECK(forged.verify([](hid_t, hid_t group) {
    return make_dataset(group, "w_gate", H5T_IEEE_F32LE, dataset_properties().get());
  }) == "");
}

TEST_CASE("links that lead elsewhere are not followed") {
  Forged forged;
  SECTION("a soft link") {
    CHECK_THAT(forged.verify([](hid_t, hid_t group) {
      H5Lcreate_soft("/other", group, "w_gate", H5P_DEFAULT, H5P_DEFAULT);
      return std::int64_t{2048};
    }),
               Contains("is not there as plain groups and a dataset"));
  }
  SECTION("an external link") {
    CHECK_THAT(forged.verify([](hid_t, hid_t group) {
      H5Lcreate_external(file_name, "/other", group, "w_gate", H5P_DEFAULT, H5P_DEFAULT);
      return std::int64_t{2048};
    }),
               Contains("is not there as plain groups and a dataset"));
  }
  SECTION("a soft link among the groups above") {
    CHECK_THAT(forged.verify([](hid_t file, hid_t group) {
      const std::int64_t offset = make_dataset(group, "w_gate", H5T_IEEE_F32LE, dataset_properties().get());
      H5Lmove(file, "/layers/0", file, "/aside", H5P_DEFAULT, H5P_DEFAULT);
      H5Lcreate_soft("/aside", file, "/layers/0", H5P_DEFAULT, H5P_DEFAULT);
      return offset;
    }),
               Contains("is not there as plain groups and a dataset"));
  }
  SECTION("nothing") {
    CHECK_THAT(forged.verify([](hid_t, hid_t) { return std::int64_t{0}; }), Contains("is not there"));
  }
  SECTION("a group in the dataset's place") {
    CHECK_THAT(forged.verify([](hid_t, hid_t group) {
      const Hdf5Handle made(H5Gcreate2(group, "w_gate", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
      return std::int64_t{0};
    }),
               Contains("cannot open"));
  }
}

TEST_CASE("data that is not plainly in the file is not read") {
  Forged forged;
  const Hdf5Handle properties = dataset_properties();
  const auto verify = [&] {
    return forged.verify(
        [&](hid_t, hid_t group) { return make_dataset(group, "w_gate", H5T_IEEE_F32LE, properties.get()); });
  };
  SECTION("chunks") {
    H5Pset_chunk(properties.get(), 2, dims);
    CHECK_THAT(verify(), Contains("its layout is not contiguous"));
  }
  SECTION("a filter") {
    H5Pset_chunk(properties.get(), 2, dims);
    H5Pset_deflate(properties.get(), 6);
    CHECK_THAT(verify(), Contains("its layout is not contiguous"));
  }
  SECTION("compact") {
    H5Pset_layout(properties.get(), H5D_COMPACT);
    CHECK_THAT(verify(), Contains("its layout is not contiguous"));
  }
  SECTION("another file's bytes") {
    H5Pset_external(properties.get(), (forged.folder / "secret").c_str(), 0, H5F_UNLIMITED);
    CHECK_THAT(verify(), Contains("its data lies in another file"));
  }
  SECTION("virtual") {
    CHECK_THAT(forged.verify([](hid_t, hid_t group) {
      const Hdf5Handle space(H5Screate_simple(2, dims, nullptr), H5Sclose);
      const Hdf5Handle lent(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
      H5Pset_virtual(lent.get(), space.get(), file_name, "/other", space.get());
      const Hdf5Handle made(
          H5Dcreate2(group, "w_gate", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, lent.get(), H5P_DEFAULT), H5Dclose);
      REQUIRE(bool(made));
      return std::int64_t{0};
    }),
               Contains("its layout is not contiguous"));
  }
}

TEST_CASE("data of another type, shape or place is not read") {
  Forged forged;
  const auto verify = [&](hid_t type, std::vector<hsize_t> shape) {
    return forged.verify(
        [&](hid_t, hid_t group) { return make_dataset(group, "w_gate", type, dataset_properties().get(), shape); });
  };
  CHECK_THAT(verify(H5T_STD_I32LE, {3, 5}), Contains("its type is not little-endian float32"));
  CHECK_THAT(verify(H5T_IEEE_F64LE, {3, 5}), Contains("its type is not little-endian float32"));
  CHECK_THAT(verify(H5T_IEEE_F32BE, {3, 5}), Contains("its type is not little-endian float32"));
  CHECK_THAT(verify(H5T_IEEE_F32LE, {5, 3}), Contains("its shape is not the manifest's"));
  CHECK_THAT(verify(H5T_IEEE_F32LE, {15}), Contains("its shape is not the manifest's"));
  CHECK_THAT(verify(H5T_IEEE_F32LE, {3, 5, 1}), Contains("its shape is not the manifest's"));
  CHECK_THAT(verify(H5T_IEEE_F32LE, {20, 50}),
             Contains("its shape is not the manifest's"));  // more than there is room for
  CHECK_THAT(forged.verify([](hid_t, hid_t group) {
    return make_dataset(group, "w_gate", H5T_IEEE_F32LE, dataset_properties().get()) + 4;
  }),
             Contains("it is not where the manifest says"));
}

TEST_CASE("data that is not what was hashed in memory is told") {
  Forged forged;
  CHECK_THAT(forged.verify([&](hid_t file, hid_t group) {
    const std::int64_t offset = make_dataset(group, "w_gate", H5T_IEEE_F32LE, dataset_properties().get());
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    const Hdf5Handle dataset(H5Dopen2(group, "w_gate", H5P_DEFAULT), H5Dclose);
    const std::vector<float> zeros(15, 0.0F);
    H5Dwrite(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros.data());
    return offset;
  }),
             Contains("have not their XXH3-64"));
}

}  // namespace
}  // namespace switchyard::test
