#include "trainer/checkpoint/reshard_plan.h"

#include "comm/base/ids.h"
#include "comm/group/topology.h"
#include "trainer/checkpoint/names.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

namespace switchyard::checkpoint {
namespace {

using ExpertKey = std::pair<int, int>;  // layer, expert

// What stays together: an expert with all its tensors, or a replicated parameter with its moments.
struct Unit {
  std::vector<PlannedTensor> tensors;  // by name, then weight, m, v
  std::string_view source;             // the file that its weights lie in
  std::int64_t bytes() const {
    std::int64_t sum = 0;
    for (const PlannedTensor& tensor : tensors) sum += tensor.target.bytes();
    return sum;
  }
};
struct Units {
  std::map<std::string_view, Unit> replicated;
  std::map<ExpertKey, Unit> experts;
};

TensorRecord whole_of(const TensorRecord& piece) {
  TensorRecord tensor = piece;
  tensor.first = 0;
  tensor.count = tensor.size();
  tensor.path = dataset_path(tensor);
  tensor.offset = 0;
  tensor.hash = 0;
  return tensor;
}

Units units_of(const Manifest& manifest, bool drop_optimizer) {
  std::vector<const TensorRecord*> records;
  for (const TensorRecord& tensor : manifest.tensors) {
    if (!drop_optimizer || tensor.kind == StateKind::Weight) records.push_back(&tensor);
  }
  std::sort(records.begin(), records.end(), [](const TensorRecord* a, const TensorRecord* b) {
    return std::tie(a->name, a->kind, a->first) < std::tie(b->name, b->kind, b->first);
  });
  Units units;
  for (const TensorRecord* record : records) {
    Unit& unit = record->owner.replicated() ? units.replicated[record->name]
                                            : units.experts[{record->owner.layer, record->owner.expert}];
    if (record->kind == StateKind::Weight && unit.source.empty()) unit.source = record->file;
    const bool next_piece = !unit.tensors.empty() && unit.tensors.back().target.name == record->name &&
                            unit.tensors.back().target.kind == record->kind;
    if (!next_piece) unit.tensors.push_back({whole_of(*record), {}});
    unit.tensors.back().sources.push_back(record);
  }
  return units;
}

// The units of each file; a file may be empty.
using Parts = std::vector<std::vector<const Unit*>>;

Parts experts_by_source(const Units& units) {
  std::map<std::string_view, std::size_t> number_of;  // in the order of their first experts
  Parts parts;
  for (const auto& [key, unit] : units.experts) {
    const std::size_t number = number_of.emplace(unit.source, parts.size()).first->second;
    if (number == parts.size()) parts.emplace_back();
    parts[number].push_back(&unit);
  }
  return parts;
}

Parts experts_by_rank(const Units& units, std::int64_t ranks) {
  std::map<int, std::vector<const Unit*>> layers;
  for (const auto& [key, unit] : units.experts) layers[key.first].push_back(&unit);
  Parts parts(usize(ranks));
  for (const auto& [layer, experts] : layers) {
    const std::int64_t count = isize(experts.size());
    const int owners = static_cast<int>(std::min(ranks, count));
    for (std::int64_t i = 0; i < count; ++i) {
      parts[usize(balanced_owner(count, owners, i))].push_back(experts[usize(i)]);
    }
  }
  return parts;
}

Parts experts_by_number(const Units& units, std::int64_t each) {
  Parts parts;
  for (const auto& [key, unit] : units.experts) {
    if (parts.empty() || isize(parts.back().size()) == each) parts.emplace_back();
    parts.back().push_back(&unit);
  }
  return parts;
}

// The largest first, each to the file that has the least so far: no file is larger than another by more than a unit.
Parts balance(const std::map<std::string_view, Unit>& units, std::int64_t files) {
  std::vector<std::pair<std::int64_t, const Unit*>> by_size;
  for (const auto& [name, unit] : units) by_size.emplace_back(unit.bytes(), &unit);
  std::stable_sort(by_size.begin(), by_size.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  Parts parts(usize(files));
  std::vector<std::int64_t> bytes(usize(files), 0);
  for (const auto& [size, unit] : by_size) {
    const std::size_t least = usize(std::min_element(bytes.begin(), bytes.end()) - bytes.begin());
    parts[least].push_back(unit);
    bytes[least] += size;
  }
  for (auto& part : parts) {
    std::sort(part.begin(), part.end(), [](const Unit* a, const Unit* b) {
      return a->tensors.front().target.name < b->tensors.front().target.name;
    });
  }
  return parts;
}

std::int64_t count_replicated_files(const Manifest& manifest) {
  std::set<std::string_view> files;
  for (const TensorRecord& tensor : manifest.tensors) {
    if (tensor.owner.replicated()) files.insert(tensor.file);
  }
  return isize(files.size());
}

// Files are numbered among those that hold something. by_rank: a part's number is that of its rank.
void add_files(const char* kind, const Parts& parts, bool by_rank, ReshardPlan& plan) {
  const auto count =
      static_cast<int>(std::count_if(parts.begin(), parts.end(), [](const auto& part) { return !part.empty(); }));
  int number = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].empty()) continue;
    PlannedFile file{shard_file_name(kind, number++, count), by_rank ? static_cast<int>(i) : 0, {}};
    for (const Unit* unit : parts[i]) {
      for (PlannedTensor tensor : unit->tensors) {
        tensor.target.file = file.name;
        file.tensors.push_back(std::move(tensor));
      }
    }
    plan.files.push_back(std::move(file));
  }
}

}  // namespace

std::int64_t PlannedFile::bytes() const {
  std::int64_t sum = 0;
  for (const PlannedTensor& tensor : tensors) sum += tensor.target.bytes();
  return sum;
}

std::int64_t ReshardPlan::bytes() const {
  std::int64_t sum = 0;
  for (const PlannedFile& file : files) sum += file.bytes();
  return sum;
}

ReshardPlan plan_reshard(const Manifest& manifest, const ReshardOptions& options) {
  using By = ReshardOptions::By;
  constexpr std::int64_t most_files = 99999;  // of a kind: what their names have digits for
  const bool by_rank = options.by == By::Ranks;
  if (options.by != By::Source && options.count < 1) fail(ErrorKind::Usage, "there must be at least one");
  if (by_rank && options.count > most_files) {
    fail(ErrorKind::Usage, "{} ranks are more than the {} that files have numbers for", options.count, most_files);
  }
  const Units units = units_of(manifest, options.drop_optimizer);
  ReshardPlan plan;
  plan.ranks = by_rank ? options.count : manifest.ranks;
  const std::int64_t replicated = by_rank ? options.count : std::max<std::int64_t>(1, count_replicated_files(manifest));
  add_files("replicated", balance(units.replicated, replicated), by_rank, plan);
  const Parts experts = by_rank                            ? experts_by_rank(units, options.count)
                        : options.by == By::ExpertsPerFile ? experts_by_number(units, options.count)
                                                           : experts_by_source(units);
  if (isize(experts.size()) > most_files) {
    fail(ErrorKind::Usage, "that gives {} files of experts, more than the {} that files have numbers for",
         experts.size(), most_files);
  }
  add_files("experts", experts, by_rank, plan);
  return plan;
}

void check_plan(const ReshardPlan& plan, const Manifest& manifest, const ReshardOptions& options) {
  using Key = std::pair<std::string_view, StateKind>;
  std::set<Key> planned;
  std::set<std::string_view> files;
  std::map<ExpertKey, std::string_view> file_of;
  for (const PlannedFile& file : plan.files) {
    require(files.insert(file.name).second, "the plan has the file {} twice", file.name);
    for (const PlannedTensor& tensor : file.tensors) {
      const TensorRecord& target = tensor.target;
      const std::string what = describe(target.name, target.kind, target.owner);
      require(planned.insert({target.name, target.kind}).second, "the plan has {} twice", what);
      require(target.whole() && target.file == file.name, "the plan has only a part of {}", what);
      std::int64_t end = 0;
      for (const TensorRecord* source : tensor.sources) {
        require(source->name == target.name && source->kind == target.kind && source->first == end,
                "the plan puts {} together from the wrong pieces", what);
        end += source->count;
      }
      require(end == target.size(), "the plan has {} of the {} elements of {}", end, target.size(), what);
      if (target.owner.replicated()) continue;
      const auto place = file_of.emplace(ExpertKey(target.owner.layer, target.owner.expert), file.name).first;
      require(place->second == file.name, "the plan cuts an expert: {} is apart from its other tensors", what);
    }
  }
  for (const TensorRecord& tensor : manifest.tensors) {
    const bool stays = !options.drop_optimizer || tensor.kind == StateKind::Weight;
    require(planned.contains({tensor.name, tensor.kind}) == stays, "the plan {} {}", stays ? "leaves out" : "keeps",
            describe(tensor.name, tensor.kind, tensor.owner));
  }
}

}  // namespace switchyard::checkpoint
