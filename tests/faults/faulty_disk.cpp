// A disk that fails by order, for programs that are started with this library in LD_PRELOAD:
//
//   FAULTY_DISK="rank=1,call=fsync,path=experts,error=5"    calls on files whose path holds the text fail so
//   FAULTY_DISK="rank=1,call=pwrite,path=experts,short=1"   writes take half of what they are given, or a byte
//   FAULTY_DISK="rank=1,call=pread,path=experts,sleep=0.5"  fsync, pwrite or pread take so many seconds longer
//
// rank: -1 for all of them. ends: instead of path, the text with which it ends.
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include <dlfcn.h>
#include <unistd.h>

namespace {

std::string field(const char* name) {
  const char* const variable = std::getenv("FAULTY_DISK");
  if (variable == nullptr) return "";
  const std::string all = "," + std::string(variable) + ",";
  const std::string key = "," + std::string(name) + "=";
  const std::size_t at = all.find(key);
  if (at == std::string::npos) return "";
  const std::size_t begin = at + key.size();
  return all.substr(begin, all.find(',', begin) - begin);
}

bool is_meant(const char* call, int file) {
  if (field("call") != call) return false;
  const char* const me = std::getenv("OMPI_COMM_WORLD_RANK");
  const std::string rank = field("rank");
  if (rank != "-1" && (me == nullptr || rank != me)) return false;
  char path[4096];
  const ssize_t length = ::readlink(("/proc/self/fd/" + std::to_string(file)).c_str(), path, sizeof path);
  if (length <= 0) return false;
  const std::string found(path, static_cast<std::size_t>(length));
  const std::string ends = field("ends");
  return ends.empty() ? found.find(field("path")) != std::string::npos : found.ends_with(ends);
}

// What the order makes of a call: is it to fail, with errno set?
bool fails() {
  if (const double seconds = std::atof(field("sleep").c_str()); seconds > 0) {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  }
  errno = std::atoi(field("error").c_str());
  return errno != 0;
}

template <class Function>
Function next(const char* name) {
  Function function = nullptr;
  void* const found = ::dlsym(RTLD_NEXT, name);
  std::memcpy(&function, &found, sizeof function);
  return function;
}

}  // namespace

extern "C" int fsync(int file) {
  if (is_meant("fsync", file) && fails()) return -1;
  return next<int (*)(int)>("fsync")(file);
}

extern "C" ssize_t pwrite(int file, const void* data, size_t count, off_t offset) {
  if (is_meant("pwrite", file)) {
    if (fails()) return -1;
    if (!field("short").empty() && count > 1) count /= 2;
  }
  return next<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite")(file, data, count, offset);
}

extern "C" ssize_t pwrite64(int file, const void* data, size_t count, off_t offset) {
  return pwrite(file, data, count, offset);
}

extern "C" ssize_t pread(int file, void* data, size_t count, off_t offset) {
  if (is_meant("pread", file) && fails()) return -1;
  return next<ssize_t (*)(int, void*, size_t, off_t)>("pread")(file, data, count, offset);
}

extern "C" ssize_t pread64(int file, void* data, size_t count, off_t offset) {
  return pread(file, data, count, offset);
}
