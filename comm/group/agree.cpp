#include "comm/group/agree.h"

#include "comm/group/environment.h"

#include <algorithm>
#include <exception>

namespace switchyard {
namespace {

// A long value is shown from a little before the place where it differs.
std::string excerpt(const std::string& value, std::size_t difference) {
  constexpr std::size_t before = 40;
  constexpr std::size_t most = 120;
  if (value.size() <= most) return value;
  const std::size_t begin = difference > before ? difference - before : 0;
  return fmt::format("{}{}{}", begin > 0 ? "..." : "", value.substr(begin, most),
                     begin + most < value.size() ? "..." : "");
}

}  // namespace

void collectively(const Group& group, const char* what, const std::function<void()>& work) {
  bool failed = false;
  ErrorKind kind = ErrorKind::Runtime;
  std::string message;
  try {
    work();
  } catch (const Error& error) {
    failed = true;
    kind = error.kind();
    message = error.what();
  } catch (const std::exception& error) {
    failed = true;
    message = error.what();
  } catch (...) {
    failed = true;
    message = "something was thrown that is not an exception";
  }

  std::int64_t first = failed ? group.rank().value() : group.size();
  group.transport().all_reduce(&first, 1, DType::I64, ReduceOp::Min);
  if (first == group.size()) return;

  const Rank speaker(static_cast<int>(first));
  if (group.rank() == speaker)
    message = fmt::format("rank {} on {}: {}: {}", first, Environment::host(), what, message);
  std::int64_t code = static_cast<int>(kind);
  group.transport().broadcast(&code, Bytes(sizeof code), speaker);
  message = group.broadcast(message, speaker);
  throw CollectiveError(static_cast<ErrorKind>(code), message);
}

void require_same(const Group& group, const char* what, const std::string& value) {
  const std::vector<std::string> values = group.gather(value);
  const std::string& first = values.front();
  const auto other = std::find_if(values.begin(), values.end(), [&](const std::string& v) { return v != first; });
  if (other == values.end()) return;

  const auto [in_first, in_other] = std::mismatch(first.begin(), first.end(), other->begin(), other->end());
  const auto difference = static_cast<std::size_t>(in_first - first.begin());
  throw CollectiveError(ErrorKind::Runtime,
                        fmt::format("{} differs between ranks: rank 0 has \"{}\", rank {} has \"{}\"", what,
                                    excerpt(first, difference), other - values.begin(), excerpt(*other, difference)));
}

}  // namespace switchyard
