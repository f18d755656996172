#include "comm/base/handle.h"
#include "comm/base/shared_library.h"
#include "comm/device/cuda.h"
#include "layers/ops/matmul_cuda.h"

#include <bit>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

#include <cublasLt.h>

// Of cuBLASLt's epilogues the sum with what c holds (beta = 1) is used, for gradients of inputs that several products
// share and for those of weights. The others do not fit: the models have no biases; SwiGLU takes two products; GELU is the
// exact one here and cuBLASLt's is the tanh form; experts with ReLU are grouped products, which are ours, and backward
// reads what a dense layer's ReLU was given. A dense layer's residual is not what its sums begin with: a chain of products
// begins at zero, so that a GPU's reproducible bits are the CPU's.
namespace switchyard::cuda {
namespace {

// The functions of cuBLASLt, which is loaded with the first product.
struct CublasLt {
  decltype(::cublasLtCreate)* create = nullptr;
  decltype(::cublasLtGetStatusName)* getStatusName = nullptr;
  decltype(::cublasLtGetStatusString)* getStatusString = nullptr;
  decltype(::cublasLtMatmul)* matmul = nullptr;
  decltype(::cublasLtMatmulAlgoCheck)* matmulAlgoCheck = nullptr;
  decltype(::cublasLtMatmulAlgoGetHeuristic)* matmulAlgoGetHeuristic = nullptr;
  decltype(::cublasLtMatmulDescCreate)* matmulDescCreate = nullptr;
  decltype(::cublasLtMatmulDescDestroy)* matmulDescDestroy = nullptr;
  decltype(::cublasLtMatmulDescSetAttribute)* matmulDescSetAttribute = nullptr;
  decltype(::cublasLtMatmulPreferenceCreate)* matmulPreferenceCreate = nullptr;
  decltype(::cublasLtMatmulPreferenceDestroy)* matmulPreferenceDestroy = nullptr;
  decltype(::cublasLtMatmulPreferenceSetAttribute)* matmulPreferenceSetAttribute = nullptr;
  decltype(::cublasLtMatrixLayoutCreate)* matrixLayoutCreate = nullptr;
  decltype(::cublasLtMatrixLayoutDestroy)* matrixLayoutDestroy = nullptr;
  decltype(::cublasLtMatrixLayoutSetAttribute)* matrixLayoutSetAttribute = nullptr;

  CublasLt() {
    const SharedLibrary library("libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR));
    library.find("cublasLtCreate", create);
    library.find("cublasLtGetStatusName", getStatusName);
    library.find("cublasLtGetStatusString", getStatusString);
    library.find("cublasLtMatmul", matmul);
    library.find("cublasLtMatmulAlgoCheck", matmulAlgoCheck);
    library.find("cublasLtMatmulAlgoGetHeuristic", matmulAlgoGetHeuristic);
    library.find("cublasLtMatmulDescCreate", matmulDescCreate);
    library.find("cublasLtMatmulDescDestroy", matmulDescDestroy);
    library.find("cublasLtMatmulDescSetAttribute", matmulDescSetAttribute);
    library.find("cublasLtMatmulPreferenceCreate", matmulPreferenceCreate);
    library.find("cublasLtMatmulPreferenceDestroy", matmulPreferenceDestroy);
    library.find("cublasLtMatmulPreferenceSetAttribute", matmulPreferenceSetAttribute);
    library.find("cublasLtMatrixLayoutCreate", matrixLayoutCreate);
    library.find("cublasLtMatrixLayoutDestroy", matrixLayoutDestroy);
    library.find("cublasLtMatrixLayoutSetAttribute", matrixLayoutSetAttribute);
  }
};
const CublasLt& lt() {
  static const CublasLt functions;
  return functions;
}

void check_blas(cublasStatus_t code, const char* call) {
  if (code == CUBLAS_STATUS_SUCCESS) return;
  fail(ErrorKind::Runtime, "{} failed: {} ({})", call, lt().getStatusString(code), lt().getStatusName(code));
}

template <class Object, auto destroy>
struct Traits {
  using Value = Object;
  static Value none() { return nullptr; }
  static void release(Value value) noexcept { (lt().*destroy)(value); }
};
using Operation = Handle<Traits<cublasLtMatmulDesc_t, &CublasLt::matmulDescDestroy>>;
using Layout = Handle<Traits<cublasLtMatrixLayout_t, &CublasLt::matrixLayoutDestroy>>;
using Preference = Handle<Traits<cublasLtMatmulPreference_t, &CublasLt::matmulPreferenceDestroy>>;

cudaDataType_t blas_type(DType dtype) {
  require(dtype == DType::F32 || dtype == DType::BF16, "matrices of type {} are not multiplied", name_of(dtype));
  return dtype == DType::F32 ? CUDA_R_32F : CUDA_R_16BF;
}

// cuBLAS speaks of columns: what is row-major [rows, cols] to us is its [cols, rows] with leading dimension cols.
Layout layout(DType dtype, std::int64_t rows, std::int64_t cols) {
  cublasLtMatrixLayout_t made = nullptr;
  check_blas(lt().matrixLayoutCreate(&made, blas_type(dtype), static_cast<std::uint64_t>(cols),
                                     static_cast<std::uint64_t>(rows), cols),
             "cublasLtMatrixLayoutCreate");
  return Layout(made);
}

bool aligned(const void* memory) {
  return reinterpret_cast<std::uintptr_t>(memory) % 16 == 0;
}

// An expert has another number of rows each time, and to ask for an algorithm takes the host longer than a product: it
// is asked for the next number that has few binary digits, eight to a power of two.
std::int64_t rounded_up(std::int64_t rows) {
  const std::int64_t step = rows <= 64 ? 1 : static_cast<std::int64_t>(std::bit_floor(std::uint64_t(rows - 1))) / 8;
  return (rows + step - 1) / step * step;
}
// The product of which cuBLAS is asked for an algorithm for p. The rows of p's activations are those of its result, or
// what the sum goes over.
Matmul with_rounded_rows(Matmul p) {
  if (!p.a_transposed) {
    p.m = rounded_up(p.m);
  } else if (!p.b_transposed) {  // else the rows are also how far apart the lines of b are
    p.k = rounded_up(p.k);
  }
  return p;
}

// A product as cuBLAS sees it: which of its algorithms is taken depends on these alone.
using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, bool, bool, DType, DType, bool, bool>;

struct Planned {
  Operation operation;
  Layout left, right, result;
  cublasLtMatmulAlgo_t algorithm{};
};

class Blas {
 public:
  explicit Blas(Device& device) : workspace_(device, Bytes(workspace_size)) {
    check_blas(lt().create(&handle_), "cublasLtCreate");
  }

  void run(Device& device, const Matmul& p) {
    const bool all_aligned = aligned(p.a) && aligned(p.b) && aligned(p.c);
    const Matmul rounded = with_rounded_rows(p);
    Planned& found = planned(rounded, all_aligned);
    const bool is_it = rounded.m == p.m && rounded.k == p.k;
    run(device, p, is_it || fits(found, p) ? found : planned(p, all_aligned));
  }

 private:
  static constexpr std::int64_t workspace_size = 32 << 20;  // what NVIDIA recommends for Hopper

  void run(Device& device, const Matmul& p, const Planned& found) {
    const float alpha = 1;
    const float beta = p.accumulate ? 1 : 0;
    check_blas(lt().matmul(handle_, found.operation.get(), &alpha, p.b, found.left.get(), p.a, found.right.get(), &beta,
                           p.c, found.result.get(), p.c, found.result.get(), &found.algorithm, workspace_.data(),
                           usize(workspace_size), stream_of(device)),
               "cublasLtMatmul");
  }

  Planned& planned(const Matmul& p, bool all_aligned) {
    const Key key{p.m, p.n, p.k, p.a_transposed, p.b_transposed, p.in, p.out, p.accumulate, all_aligned};
    auto planned = planned_.find(key);
    if (planned == planned_.end()) planned = planned_.emplace(key, plan(p, all_aligned)).first;
    set_rows(planned->second, p);
    return planned->second;
  }

  // What differs between products that share an algorithm. The rows of ours are columns to cuBLAS.
  static void set_rows(Planned& planned, const Matmul& p) {
    const auto set = [](const Layout& layout, std::int64_t rows) {
      const auto columns = static_cast<std::uint64_t>(rows);
      check_blas(lt().matrixLayoutSetAttribute(layout.get(), CUBLASLT_MATRIX_LAYOUT_COLS, &columns, sizeof(columns)),
                 "cublasLtMatrixLayoutSetAttribute");
    };
    set(planned.right, p.a_transposed ? p.k : p.m);
    if (p.a_transposed && !p.b_transposed) set(planned.left, p.k);
    if (!p.a_transposed) set(planned.result, p.m);
  }

  // Gives the plan these rows; whether its algorithm can have them.
  bool fits(Planned& planned, const Matmul& p) const {
    set_rows(planned, p);
    cublasLtMatmulHeuristicResult_t result{};
    return lt().matmulAlgoCheck(handle_, planned.operation.get(), planned.left.get(), planned.right.get(),
                                planned.result.get(), planned.result.get(), &planned.algorithm,
                                &result) == CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= usize(workspace_size);
  }

  // c = a b in rows is c' = b' a' in columns: the matrices change sides, and none is moved.
  Planned plan(const Matmul& p, bool all_aligned) const {
    Planned planned;
    cublasLtMatmulDesc_t operation = nullptr;
    check_blas(lt().matmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    planned.operation = Operation(operation);
    const cublasOperation_t left = p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t right = p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    check_blas(lt().matmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &left, sizeof(left)),
               "cublasLtMatmulDescSetAttribute");
    check_blas(lt().matmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSB, &right, sizeof(right)),
               "cublasLtMatmulDescSetAttribute");
    planned.left = p.b_transposed ? layout(p.in, p.n, p.k) : layout(p.in, p.k, p.n);
    planned.right = p.a_transposed ? layout(p.in, p.k, p.m) : layout(p.in, p.m, p.k);
    planned.result = layout(p.out, p.m, p.n);

    cublasLtMatmulPreference_t preference = nullptr;
    check_blas(lt().matmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    const Preference owner(preference);
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
      check_blas(lt().matmulPreferenceSetAttribute(preference, name, &value, sizeof(value)),
                 "cublasLtMatmulPreferenceSetAttribute");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_size));
    const auto alignment = [&](DType dtype) { return static_cast<std::uint32_t>(all_aligned ? 16 : size_of(dtype)); };
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.in));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.in));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(p.out));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(p.out));
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    check_blas(lt().matmulAlgoGetHeuristic(handle_, operation, planned.left.get(), planned.right.get(),
                                           planned.result.get(), planned.result.get(), preference, 1, &found, &count),
               "cublasLtMatmulAlgoGetHeuristic");
    require(count > 0, "cuBLAS has no algorithm for a product of [{}, {}] and [{}, {}]", p.m, p.k, p.k, p.n);
    planned.algorithm = found.algo;
    return planned;
  }

  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;  // one is enough: products follow one another on one stream
  std::map<Key, Planned> planned_;
};

}  // namespace

void matmul(Device& device, const Matmul& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (!p.accumulate) device.fill(p.c, 0, Bytes(p.m * p.n * size_of(p.out)), device.stream());
    return;
  }
  static std::mutex guard;
  static Blas* blas = nullptr;  // lives as long as the process, as its device does
  const std::lock_guard lock(guard);
  if (blas == nullptr) blas = new Blas(device);
  blas->run(device, p);
}

}  // namespace switchyard::cuda
