// A program that was built for AVX2 ends on an older CPU with "Illegal instruction", which tells nobody what to do.
// This file is compiled for every x86-64 and runs before any other code of the program; it uses nothing of the C++
// library, whose inline functions the linker may take from a file that was compiled for AVX2.
#include <string.h>
#include <unistd.h>

namespace {

void write_text(const char* text) {
  if (write(STDERR_FILENO, text, strlen(text)) < 0) _exit(1);
}

// 101 is the first priority that is not the compiler's own; constructors without one come later.
__attribute__((constructor(101))) void require_cpu() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") != 0;
  const bool fma = __builtin_cpu_supports("fma") != 0;
  const bool bmi2 = __builtin_cpu_supports("bmi2") != 0;
  if (avx2 && fma && bmi2) return;
  write_text("switchyard: this program was built for x86-64-v3, and this CPU lacks");
  if (!avx2) write_text(" AVX2");
  if (!fma) write_text(" FMA");
  if (!bmi2) write_text(" BMI2");
  write_text(": build it here with cmake --preset release -DSWITCHYARD_MARCH=native\n");
  _exit(1);
}

}  // namespace
