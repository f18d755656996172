// Element types that cross wires and lie in buffers and checkpoints.
#pragma once

#include "comm/base/ids.h"

#include <cstdint>

namespace switchyard {

enum class DType : std::uint8_t { F32, BF16, F64, I32, I64, U8, U16, U64 };

constexpr std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::U8:
      return 1;
    case DType::BF16:
    case DType::U16:
      return 2;
    case DType::F32:
    case DType::I32:
      return 4;
    case DType::F64:
    case DType::I64:
    case DType::U64:
      return 8;
  }
  return 0;
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return "float32";
    case DType::BF16:
      return "bfloat16";
    case DType::F64:
      return "float64";
    case DType::I32:
      return "int32";
    case DType::I64:
      return "int64";
    case DType::U8:
      return "uint8";
    case DType::U16:
      return "uint16";
    case DType::U64:
      return "uint64";
  }
  return "unknown";
}

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::F32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::F64;
}
template <>
constexpr DType dtype_of<std::int32_t>() {
  return DType::I32;
}
template <>
constexpr DType dtype_of<std::int64_t>() {
  return DType::I64;
}
template <>
constexpr DType dtype_of<std::uint8_t>() {
  return DType::U8;
}
template <>
constexpr DType dtype_of<std::uint16_t>() {
  return DType::U16;
}
template <>
constexpr DType dtype_of<std::uint64_t>() {
  return DType::U64;
}

}  // namespace switchyard
