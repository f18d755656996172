#include "trainer/loop/generate.h"

#include <algorithm>
#include <cmath>

namespace switchyard {

void generate(Model& model, const ModelConfig& config, const Tokenizer& tokenizer, std::string_view prompt,
              const GenerateOptions& options, const std::function<void(std::int32_t)>& emit) {
  std::vector<std::int32_t> text = tokenizer.encode(prompt);
  // Nothing to go on from: the model has seen texts begin after the end of another.
  if (text.empty()) text.push_back(tokenizer.end_of_text());

  const Random random(options.seed, "generate");
  std::vector<float> logits(usize(config.vocab));
  std::int64_t first = std::max<std::int64_t>(0, isize(text.size()) - config.seq_len);  // where the context begins
  std::int64_t fed = 0;                                                                 // of the context, in the cache
  for (std::int64_t i = 0; i < options.tokens; ++i) {
    if (isize(text.size()) - first > config.seq_len) {
      first = isize(text.size()) - std::max<std::int64_t>(1, config.seq_len / 2);
      fed = 0;
    }
    const auto context = std::span(text).subspan(usize(first + fed));
    model.decode(context, fed, logits);
    fed += isize(context.size());
    for (const float logit : logits) {
      if (!std::isfinite(logit)) fail(ErrorKind::Data, "the model's scores are not finite: its weights are not usable");
    }
    const std::int32_t token = sample(logits, options.sampler, random, static_cast<std::uint64_t>(i));
    if (token == tokenizer.end_of_text()) return;
    text.push_back(token);
    emit(token);
  }
}

}  // namespace switchyard
