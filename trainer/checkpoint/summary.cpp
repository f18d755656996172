#include "trainer/checkpoint/summary.h"

#include "comm/base/ids.h"
#include "trainer/checkpoint/tensor_stream.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

namespace switchyard::checkpoint {
namespace {

// Eight sums side by side, added as a tree: an order that does not hang on the vector width.
double sum_of_squares(std::span<const float> values) {
  std::array<double, 8> sums{};
  const std::size_t whole = values.size() / 8 * 8;
  for (std::size_t i = 0; i < whole; i += 8) {
    for (std::size_t lane = 0; lane < 8; ++lane) {
      const double value = static_cast<double>(values[i + lane]);
      sums[lane] += value * value;
    }
  }
  for (std::size_t i = whole; i < values.size(); ++i) {
    sums[i - whole] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

}  // namespace

const char* part_of_model(std::string_view name) {
  constexpr std::pair<const char*, const char*> parts[] = {
      {".experts.", "experts"},        {".shared_experts.", "shared experts"},
      {".router.", "routers"},         {".self_attn.", "attention"},
      {".mlp.", "dense feed-forward"}, {"embed_tokens.", "embedding"},
      {"lm_head.", "output"},          {"norm.", "norms"}};
  for (const auto& [infix, part] : parts) {
    if (name.find(infix) != std::string_view::npos) return part;
  }
  return "other";
}

Summary summarise(const Manifest& manifest) {
  Summary summary;
  std::map<std::string_view, std::size_t> number_of;
  for (const FileRecord& file : manifest.files) {
    number_of[file.name] = summary.files.size();
    summary.files.push_back({file, 0, {}});
  }
  std::map<int, std::set<int>> experts;
  for (const TensorRecord& tensor : manifest.tensors) {
    FileSummary& file = summary.files[number_of.at(tensor.file)];
    ++file.tensors;
    if (!tensor.owner.replicated()) {
      file.experts.emplace(tensor.owner.layer, tensor.owner.expert);
      experts[tensor.owner.layer].insert(tensor.owner.expert);
    }
    if (tensor.kind != StateKind::Weight) {
      summary.optimizer = true;
      continue;
    }
    const std::int64_t count = tensor.count;
    summary.parameters += count;
    const std::string part = part_of_model(tensor.name);
    const auto known = std::find_if(summary.by_part.begin(), summary.by_part.end(),
                                    [&](const auto& entry) { return entry.first == part; });
    if (known == summary.by_part.end()) {
      summary.by_part.emplace_back(part, count);
    } else {
      known->second += count;
    }
  }
  for (const auto& [layer, numbers] : experts) summary.experts[layer].assign(numbers.begin(), numbers.end());
  return summary;
}

std::map<ExpertKey, double> expert_norms(const std::filesystem::path& folder, const Manifest& manifest) {
  std::map<ExpertKey, double> norms;
  for (const TensorRecord& tensor : manifest.tensors) {
    if (tensor.owner.replicated() || tensor.kind != StateKind::Weight) continue;
    double& sum = norms[{tensor.owner.layer, tensor.owner.expert}];
    stream_record(folder, tensor, [&](const void* data, std::int64_t bytes) {
      sum += sum_of_squares({static_cast<const float*>(data), usize(bytes) / sizeof(float)});
    });
  }
  for (auto& [key, sum] : norms) sum = std::sqrt(sum);
  return norms;
}

}  // namespace switchyard::checkpoint
