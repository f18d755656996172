#include "launch/openblas.h"

#include "comm/base/ids.h"

#include <dlfcn.h>

namespace switchyard {
namespace {

template <class Function>
void find(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
}

}  // namespace

std::unique_ptr<OpenBlas> OpenBlas::load() {
  for (const char* name : {"libopenblas.so.0", "libopenblas.so"}) {
    void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) continue;
    std::unique_ptr<OpenBlas> found(new OpenBlas(library));
    if (found->sgemm_ != nullptr && found->set_threads_ != nullptr) return found;
  }
  return nullptr;
}

OpenBlas::OpenBlas(void* library) : library_(library) {
  find(library, "openblas_set_num_threads", set_threads_);
  find(library, "openblas_get_config", config_);
  find(library, "openblas_get_corename", core_);
  find(library, "cblas_sgemm", sgemm_);
}

OpenBlas::~OpenBlas() {
  dlclose(library_);
}

std::string OpenBlas::description() const {
  std::string text = config_ != nullptr ? config_() : "OpenBLAS";
  while (!text.empty() && text.back() == ' ') text.pop_back();
  if (core_ != nullptr) text += std::string(", kernels for ") + core_();
  return text;
}

void OpenBlas::sgemm(Op op_a, Op op_b, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                     std::int64_t a_stride, const float* b, std::int64_t b_stride, float beta, float* c,
                     std::int64_t c_stride) const {
  constexpr int row_major = 101;
  sgemm_(row_major, static_cast<int>(op_a), static_cast<int>(op_b), checked_int(m, "m"), checked_int(n, "n"),
         checked_int(k, "k"), 1.0f, a, checked_int(a_stride, "a stride"), b, checked_int(b_stride, "b stride"), beta, c,
         checked_int(c_stride, "c stride"));
}

}  // namespace switchyard
