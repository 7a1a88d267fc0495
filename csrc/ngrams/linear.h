// A linear model over hashed n-grams of words (Joulin et al. 2016, arXiv:1607.01759, without the
// hidden layer; Weinberger et al. 2009, arXiv:0902.2206).
//
//   B  buckets, 2^bits        C  columns: 1 for two labels (logistic), else one a label (softmax)
//   D  documents              F  features: buckets of all n-grams of all documents, end to end
//
// z_c = bias_c + sum_f w[f, c] / sqrt(features of the document)
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "ngrams/words.h"

namespace mj {

constexpr int GRAMS_VERSION = 1;

// How a text becomes features.
struct GramRules {
  int bits = 20;
  int order = 2;         // words in the longest n-gram
  int64_t limit = 1 << 16;  // bytes of a text that are looked at, from its beginning
};

void check(const GramRules& rules);

// Append the bucket of each n-gram of `text`; `words` is scratch.
void gram_buckets(std::string_view text, const GramRules& rules, std::vector<uint64_t>& words,
                  std::vector<uint32_t>& buckets);

// Scores of texts by weights [B, C] and biases [C].
class LinearScorer {
 public:
  LinearScorer(std::span<const float> weights, std::span<const float> biases, GramRules rules);

  int columns() const { return static_cast<int>(biases_.size()); }

  // Write z [C]; returns the number of features.  Not for two threads at once with one `Scratch`.
  struct Scratch {
    std::vector<uint64_t> words;
    std::vector<uint32_t> buckets;
  };
  int64_t score(std::string_view text, Scratch& scratch, std::span<double> z) const;

 private:
  std::span<const float> weights_;
  std::vector<float> biases_;
  GramRules rules_;
};

// Documents to learn from; views only.
struct Examples {
  std::span<const uint32_t> features;  // [F], those of a document in ascending order
  std::span<const int64_t> starts;     // [D + 1] in features
  std::span<const int32_t> labels;     // [D]: 0 or 1 with one column, else 0..C-1
  std::span<const float> importance;   // [D], factor of a document's gradient
};

// AdaGrad (Duchi et al. 2011) over batches whose gradients are of the weights before the batch.
// Each bucket's changes are made in the order of the batch by the one thread that owns it, so the
// result does not depend on the number of threads.
class LinearTrainer {
 public:
  LinearTrainer(int bits, int columns);

  // Learn from the documents `order` names, in that order; the mean loss before the changes.
  double epoch(const Examples& examples, std::span<const int64_t> order, double rate, int batch,
               int threads);

  const std::vector<float>& weights() const { return weights_; }
  const std::vector<float>& biases() const { return biases_; }

 private:
  void foresee(const Examples& examples, std::span<const int64_t> batch, int threads);
  void change(const Examples& examples, std::span<const int64_t> batch, float rate, int threads);
  void change_range(const Examples& examples, std::span<const int64_t> batch, float rate,
                    uint32_t first, uint64_t last);

  int columns_;
  std::vector<float> weights_, squares_;            // [B, C]
  std::vector<float> biases_, bias_squares_;        // [C]
  std::vector<float> slopes_;                       // [batch, C]: d loss / d z
  std::vector<double> losses_;                      // [batch]
};

}  // namespace mj
