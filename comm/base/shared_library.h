// A library that is loaded when it is needed: one of hundreds of megabytes takes a tenth of a second at each start of a
// program, whether or not it is used.
#pragma once

#include "comm/base/error.h"

#include <string>

#include <dlfcn.h>

namespace switchyard {

class SharedLibrary {
 public:
  // name: "libnccl.so.2". It stays loaded for the life of the process.
  explicit SharedLibrary(const std::string& name)
      : name_(name), handle_(::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    const char* const why = handle_ == nullptr ? ::dlerror() : nullptr;
    if (why != nullptr) why_not_ = why;
  }

  bool is_there() const { return handle_ != nullptr; }
  const std::string& why_not() const { return why_not_; }

  // Puts the address of a function into `function`. Throws Error(Runtime) where the library has it not.
  template <class F>
  void find(const char* symbol, F*& function) const {
    function = reinterpret_cast<F*>(handle_ == nullptr ? nullptr : ::dlsym(handle_, symbol));
    if (function == nullptr) {
      fail(ErrorKind::Runtime, "{} {}: {}", name_,
           handle_ == nullptr ? "cannot be loaded" : "lacks " + std::string(symbol),
           handle_ == nullptr ? why_not_ : "it is of another version");
    }
  }

 private:
  std::string name_;
  void* handle_;
  std::string why_not_;
};

}  // namespace switchyard
