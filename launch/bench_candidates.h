// The ways to carry rows to experts and back that `bench exchange` sets side by side.
#pragma once

#include "comm/base/numerics.h"
#include "comm/exchange/exchange.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace switchyard {

// What all of them are to do. Every rank has as many tokens, and every token as many slots: `slots` holds those of
// token 0, then those of token 1, and so on.
struct ExchangeTask {
  const Group& group;
  std::vector<Node> node_of;  // [ranks]
  std::vector<Slot> slots;
  std::int64_t tokens = 0;
  std::int64_t width = 0;
  Numerics numerics = Numerics::Fast;
  int chunks = 1;
};

// One layer's way there and back: plan(), dispatch(), work(), combine(), each collective.
class ExchangeCandidate {
 public:
  virtual ~ExchangeCandidate() = default;
  virtual const char* name() const = 0;
  virtual const char* key() const = 0;  // in JSON
  virtual void plan() = 0;
  virtual void dispatch(const float* rows, Wire wire) = 0;  // rows: [tokens, width]
  // What the experts do, here: expert e multiplies rows by e mod 3 + 1. Not part of what is measured.
  virtual void work() = 0;
  virtual void combine(float* rows, Wire wire) = 0;  // rows: [tokens, width]
  virtual ExchangeTraffic take_traffic() = 0;
};

// Every slot's row by itself, in one MPI_Alltoallv there and one back, summed at the sender: what is written first.
std::unique_ptr<ExchangeCandidate> make_slots_candidate(const ExchangeTask& task);
// What this program trains with.
std::unique_ptr<ExchangeCandidate> make_exchange_candidate(const ExchangeTask& task, std::unique_ptr<Exchange> exchange,
                                                           const char* name);

}  // namespace switchyard
