// Stands in for NVIDIA's driver (libcuda.so.1) in a process that has cuDNN make plans without a GPU: it takes the code
// that cuDNN has compiled, and runs none. All other calls answer that there is no device.
namespace {
constexpr int success = 0;
constexpr int no_device = 100;
int something;  // what a handle points to
}  // namespace

#define NO_DEVICE(name) \
  int name() {          \
    return no_device;   \
  }

extern "C" {

NO_DEVICE(cuCtxGetCurrent)
NO_DEVICE(cuCtxGetLimit)
NO_DEVICE(cuCtxPopCurrent)
NO_DEVICE(cuCtxPushCurrent)
NO_DEVICE(cuDeviceGet)
NO_DEVICE(cuDeviceGetCount)
NO_DEVICE(cuDriverGetVersion)
NO_DEVICE(cuGetErrorName)
NO_DEVICE(cuInit)
NO_DEVICE(cuKernelGetAttribute)
NO_DEVICE(cuLaunchCooperativeKernel)
NO_DEVICE(cuLaunchKernel)
NO_DEVICE(cuLaunchKernelEx)
NO_DEVICE(cuLibraryLoadFromFile)
NO_DEVICE(cuLinkAddData)
NO_DEVICE(cuLinkComplete)
NO_DEVICE(cuLinkCreate)
NO_DEVICE(cuLinkDestroy)
NO_DEVICE(cuOccupancyMaxPotentialClusterSize)
NO_DEVICE(cuStreamGetCtx)

int cuGetErrorString(int, const char** words) {
  *words = "there is no device";
  return success;
}
int cuKernelSetAttribute() {
  return success;
}
int cuLibraryGetKernel(void** kernel, void*, const char*) {
  *kernel = &something;
  return success;
}
int cuLibraryLoadData(void** library, const void*, void*, void*, unsigned, void*, void*, unsigned) {
  *library = &something;
  return success;
}
int cuLibraryUnload(void*) {
  return success;
}

}  // extern "C"
