// Rows that travel from device to device while the devices compute.
//   D width
//
// What is posted is packed on the main stream and goes on the exchange's (comm/transport/device_transport.h). All
// memory that it uses comes from the scratch arena and stays taken until the caller's scope ends, which must not be
// before all has been finished: nothing is used a second time that may still be on its way.
#pragma once

#include "comm/exchange/row_way.h"
#include "comm/transport/device_transport.h"
#include "layers/tensor/tensor.h"

#include <cstddef>
#include <functional>
#include <vector>

namespace switchyard {

class DeviceRows {
 public:
  DeviceRows(DeviceTransport& transport, int ranks, Arena& scratch)
      : transport_(transport), ranks_(ranks), scratch_(scratch) {}
  DeviceRows(const DeviceRows&) = delete;
  DeviceRows& operator=(const DeviceRows&) = delete;

  // How many have been posted so far, this one among them.
  using Ticket = std::uint64_t;
  // rows: of the piece, [rows, D] -> received: [R, D], once it is finished. type: in which they travel.
  Ticket post_dispatch(const PlanPiece& piece, const DispatchWay& dispatch, const Tensor& rows, DType type,
                       Tensor received);
  // back: [S, D] or [R, D] -> into: the piece's, [rows, D]. scalars: [S] or undefined, which go straight to their
  // senders with their own bits; slot_scalars: in the caller's slot order.
  Ticket post_combine(const PlanPiece& piece, const CombineWay& combine, const Tensor& back, DType type, Tensor into,
                      const Tensor& scalars, Tensor slot_scalars);
  // What the main stream is given from now on finds what all up to the ticket have brought. The host does not wait, but
  // for a transport that does.
  void finish(Ticket ticket);
  void finish_all() { finish(posted_.size()); }

 private:
  struct Posted {
    DeviceTransport::Ticket ticket = 0;  // 0: nothing travels
    std::function<void()> end;           // on the main stream, when it has come
  };
  struct Beside {  // what travels with the first hop
    std::vector<SendPart> sends;
    std::vector<ReceivePart> receives;
  };

  DeviceTransport::Ticket post(const RowWay& way, const Tensor& packed, Tensor come, Beside beside);
  Ticket put(DeviceTransport::Ticket ticket, std::function<void()> end);

  DeviceTransport& transport_;
  int ranks_;
  Arena& scratch_;
  std::vector<Posted> posted_;
  std::size_t finished_ = 0;
};

}  // namespace switchyard
