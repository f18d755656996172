// How sums are formed (config: train.numerics).
#pragma once

namespace switchyard {

enum class Numerics {
  Reproducible,  // one result, to the bit, for every layout: exact gradient sums, slots combined in expert order
  Fast,          // fp32 sums in whatever order is quickest; differs from the other by rounding only
};

constexpr const char* name_of(Numerics numerics) {
  return numerics == Numerics::Reproducible ? "reproducible" : "fast";
}

}  // namespace switchyard
