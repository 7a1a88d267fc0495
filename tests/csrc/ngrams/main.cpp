// Models of n-grams: words as hashes, probabilities that add up to 1, a linear model that learns.
#include <cmath>

#include "exact.h"
#include "ngrams/gram_scorer.h"
#include "ngrams/kneser_ney.h"
#include "ngrams/linear.h"
#include "ngrams/words.h"

namespace {

void look_at(std::string_view text) {
  std::vector<uint64_t> plain, folded, lines;
  mj::hash_words(text, mj::Splitting::plain, false, plain);
  mj::hash_words(text, mj::Splitting::folded, false, folded);
  mj::hash_words(text, mj::Splitting::plain, true, lines);
  size_t wanted = 0;
  bool inside = false;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\0' || (c >= '\t' && c <= '\r');
    wanted += !space && !inside;
    inside = !space;
  }
  exact::check(plain.size() == wanted, "words differ", text);
  exact::check(lines.size() >= plain.size(), "lines differ", text);
  std::vector<uint32_t> buckets;
  mj::gram_buckets(text, {10, 3, 100}, folded, buckets);
  for (const auto bucket : buckets) exact::check(bucket < 1024, "no bucket", text);
}

// p(w | context) over all words that can follow is 1.
void look_at_grams(int order, int threads) {
  std::vector<uint32_t> words;
  for (uint32_t line = 0; line < 40; ++line) {
    for (uint32_t i = 0; i < line % 7 + 1; ++i) words.push_back(3 + (line * i + i * i) % 9);
    words.push_back(mj::END);
  }
  const auto model = mj::train_grams(words, 12, order, threads);
  std::vector<mj::Table> tables;
  for (const auto& table : model.tables) tables.emplace_back(table);
  const mj::GramScorer scorer(model.singles, tables, 1);
  double sum = 0;
  for (uint32_t word = 0; word < 12; ++word) {
    const std::vector<uint32_t> words_of{3, word};
    if (word != mj::BEGIN) sum += std::pow(10, scorer.score_words(words_of)[1]);
  }
  exact::check(std::fabs(sum - 1) < 1e-4, "probabilities do not add up to 1");
}

void look_at_trainer(int threads) {
  const std::vector<uint32_t> features{1, 5, 2, 5, 1, 7, 2};
  const std::vector<int64_t> starts{0, 2, 4, 6, 7}, order{0, 1, 2, 3};
  const std::vector<int32_t> labels{1, 0, 1, 0};
  const std::vector<float> importance{1, 1, 1, 1};
  mj::LinearTrainer trainer(8, 1);
  double first = 0, last = 0;
  for (int epoch = 0; epoch < 20; ++epoch) {
    last = trainer.epoch({features, starts, labels, importance}, order, 0.5, 3, threads);
    if (epoch == 0) first = last;
  }
  exact::check(std::fabs(first - std::log(2.0)) < 0.2 && last < first / 3, "nothing is learnt");
}

}  // namespace

int main() {
  exact::each_hostile(look_at);
  for (const int threads : {1, 3}) {
    for (const int order : {2, 3, 5}) look_at_grams(order, threads);
    look_at_trainer(threads);
  }
  return exact::faults == 0 ? 0 : 1;
}
