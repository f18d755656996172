#include "layers/tensor/random.h"

#include "layers/tensor/natural_log.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace switchyard {
namespace {

// What a counter is drawn for, in its last word: bits and normal numbers of one index have nothing in common.
constexpr std::uint32_t purpose_bits = 0;
constexpr std::uint32_t purpose_normal = 1;
constexpr std::uint32_t purpose_key = 2;

constexpr std::int64_t block = 512;     // numbers that fill_normal makes at a time
constexpr double central_half = 0.425;  // the inverse has one formula within this distance of 1/2, others beyond

constexpr std::uint32_t low(std::uint64_t x) {
  return static_cast<std::uint32_t>(x);
}
constexpr std::uint32_t high(std::uint64_t x) {
  return static_cast<std::uint32_t>(x >> 32);
}

// FNV-1a.
std::uint64_t hash(std::string_view text) {
  std::uint64_t h = 0xcbf29ce484222325u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

std::uint64_t draw(std::array<std::uint32_t, 2> key, std::uint64_t index, std::uint32_t lane, std::uint32_t purpose) {
  const auto words = philox({low(index), high(index), lane, purpose}, key);
  return (std::uint64_t{words[1]} << 32) | words[0];
}

// The middle of one of 2^52 equal parts of (0, 1): exact, never 0 or 1, and as likely as its mirror image. (The bits
// are those of a number in [1, 2).)
double uniform_of(std::uint64_t bits) {
  return std::bit_cast<double>((std::uint64_t{0x3ff} << 52) | (bits >> 12)) - 1.0 + 0x1p-53;
}

template <class Coefficients>
double polynomial(const Coefficients& c, double x) {
  double sum = c[7];
  for (int i = 6; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

// The normal distribution's inverse at 1/2 + q for |q| <= central_half: M. J. Wichura, Algorithm AS 241 (1988), PPND16,
// which is good to 1e-16.
double inverse_normal_centre(double q) {
  static constexpr double a[] = {3.3871328727963666080e0,  1.3314166789178437745e+2, 1.9715909503065514427e+3,
                                 1.3731693765509461125e+4, 4.5921953931549871457e+4, 6.7265770927008700853e+4,
                                 3.3430575583588128105e+4, 2.5090809287301226727e+3};
  static constexpr double b[] = {1.0,
                                 4.2313330701600911252e+1,
                                 6.8718700749205790830e+2,
                                 5.3941960214247511077e+3,
                                 2.1213794301586595867e+4,
                                 3.9307895800092710610e+4,
                                 2.8729085735721942674e+4,
                                 5.2264952788528545610e+3};
  const double r = 0.180625 - q * q;
  return q * polynomial(a, r) / polynomial(b, r);
}

// The same at u outside that range.
double inverse_normal_tail(double u) {
  static constexpr double c[] = {1.42343711074968357734e0,  4.63033784615654529590e0, 5.76949722146069140550e0,
                                 3.64784832476320460504e0,  1.27045825245236838258e0, 2.41780725177450611770e-1,
                                 2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static constexpr double d[] = {1.0,
                                 2.05319162663775882187e0,
                                 1.67638483018380384940e0,
                                 6.89767334985100004550e-1,
                                 1.48103976427480074590e-1,
                                 1.51986665636164571966e-2,
                                 5.47593808499534494600e-4,
                                 1.05075007164441684324e-9};
  static constexpr double e[] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,
                                 2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                 2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static constexpr double f[] = {1.0,
                                 5.99832206555887937690e-1,
                                 1.36929880922735805310e-1,
                                 1.48753612908506148525e-2,
                                 7.86869131145613259100e-4,
                                 1.84631831751005468180e-5,
                                 1.42151175831644588870e-7,
                                 2.04426310338993978564e-15};
  const double r = std::sqrt(-natural_log(std::min(u, 1 - u)));
  const double size =
      r <= 5 ? polynomial(c, r - 1.6) / polynomial(d, r - 1.6) : polynomial(e, r - 5) / polynomial(f, r - 5);
  return u < 0.5 ? -size : size;
}

}  // namespace

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {high(product1) ^ counter[1] ^ key[0], low(product1), high(product0) ^ counter[3] ^ key[1],
               low(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

Random::Random(std::uint64_t seed, std::string_view purpose) {
  const std::uint64_t h = hash(purpose);
  const auto words = philox({low(h), high(h), low(purpose.size()), purpose_key}, {low(seed), high(seed)});
  key_ = {words[0], words[1]};
}

std::uint64_t Random::bits(std::uint64_t index, std::uint32_t lane) const {
  return draw(key_, index, lane, purpose_bits);
}

double Random::uniform(std::uint64_t index, std::uint32_t lane) const {
  return static_cast<double>(bits(index, lane) >> 11) * 0x1p-53;
}

double Random::normal(std::uint64_t index, std::uint32_t lane) const {
  const double u = uniform_of(draw(key_, index, lane, purpose_normal));
  return std::abs(u - 0.5) <= central_half ? inverse_normal_centre(u - 0.5) : inverse_normal_tail(u);
}

void fill_normal(const Random& random, std::uint64_t first, std::int64_t n, double deviation, float* values) {
#pragma omp parallel for schedule(static) if (n > block)
  for (std::int64_t begin = 0; begin < n; begin += block) {
    random.fill_block(first + static_cast<std::uint64_t>(begin), std::min(block, n - begin), deviation, values + begin);
  }
}

// What normal() does, in loops that the compiler vectorises; the tails, a seventh of the numbers, are mended
// afterwards.
void Random::fill_block(std::uint64_t first, std::int64_t n, double deviation, float* values) const {
  double u[block];
  for (std::int64_t i = 0; i < n; ++i) {
    u[i] = uniform_of(draw(key_, first + static_cast<std::uint64_t>(i), 0, purpose_normal));
  }
  for (std::int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(inverse_normal_centre(u[i] - 0.5) * deviation);
  for (std::int64_t i = 0; i < n; ++i) {
    if (std::abs(u[i] - 0.5) > central_half) values[i] = static_cast<float>(inverse_normal_tail(u[i]) * deviation);
  }
}

}  // namespace switchyard
