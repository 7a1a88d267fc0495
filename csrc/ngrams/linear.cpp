#include "ngrams/linear.h"

#include <algorithm>
#include <cmath>

#include "check.h"
#include "threads.h"

namespace mj {

namespace {

constexpr float TINY = 1e-8f;  // under the root of AdaGrad

void check_examples(const Examples& examples, int columns, size_t buckets) {
  const auto documents = examples.labels.size();
  MJ_CHECK(examples.starts.size() == documents + 1, "starts must have ", documents + 1,
           " items, one more than labels, got ", examples.starts.size());
  MJ_CHECK(examples.importance.size() == documents, "importance must have ", documents,
           " items, got ", examples.importance.size());
  MJ_CHECK(examples.starts.front() == 0 &&
               examples.starts.back() == static_cast<int64_t>(examples.features.size()),
           "starts must go from 0 to the number of features");
  MJ_CHECK(std::is_sorted(examples.starts.begin(), examples.starts.end()), "starts must ascend");
  const int32_t labels = columns == 1 ? 2 : columns;
  for (const int32_t label : examples.labels)
    MJ_CHECK(label >= 0 && label < labels, "labels must be below ", labels, ", found ", label);
  for (const uint32_t bucket : examples.features)
    MJ_CHECK(bucket < buckets, "features must be below ", buckets, ", found ", bucket);
}

// Sums weights[bucket, c] in four lanes, so that loads overlap; always in the same order.
template <typename Buckets>
double gather(const float* weights, const Buckets& buckets, size_t columns, size_t column) {
  float lanes[4] = {};
  const size_t whole = buckets.size() / 4 * 4;
  const float* base = weights + column;
  for (size_t i = 0; i < whole; i += 4)
    for (size_t lane = 0; lane < 4; ++lane) lanes[lane] += base[buckets[i + lane] * columns];
  for (size_t i = whole; i < buckets.size(); ++i) lanes[0] += base[buckets[i] * columns];
  return static_cast<double>((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
}

float scale_of(size_t features) {
  return features ? 1.0f / std::sqrt(static_cast<float>(features)) : 0.0f;
}

// Loss of z [C] for a label; z becomes d loss / d z.
double slope(std::span<double> z, int32_t label) {
  if (z.size() == 1) {
    const double margin = label ? z[0] : -z[0];
    const double p = 1 / (1 + std::exp(-z[0]));
    z[0] = p - label;
    return margin > 0 ? std::log1p(std::exp(-margin)) : std::log1p(std::exp(margin)) - margin;
  }
  const double highest = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (const double value : z) sum += std::exp(value - highest);
  const double loss = highest + std::log(sum) - z[static_cast<size_t>(label)];
  for (double& value : z) value = std::exp(value - highest) / sum;
  z[static_cast<size_t>(label)] -= 1;
  return loss;
}

}  // namespace

void check(const GramRules& rules) {
  MJ_CHECK(rules.bits >= 8 && rules.bits <= 28, "bits must be from 8 to 28, got ", rules.bits);
  MJ_CHECK(rules.order >= 1 && rules.order <= 5, "order must be from 1 to 5, got ", rules.order);
  MJ_CHECK(rules.limit >= 1, "limit must be at least 1, got ", rules.limit);
}

void gram_buckets(std::string_view text, const GramRules& rules, std::vector<uint64_t>& words,
                  std::vector<uint32_t>& buckets) {
  words.clear();
  hash_words(text.substr(0, static_cast<size_t>(rules.limit)), Splitting::folded, false, words);
  const int shift = 64 - rules.bits;
  const auto order = static_cast<size_t>(rules.order);
  buckets.reserve(buckets.size() + words.size() * order);
  for (size_t i = 0; i < words.size(); ++i) {
    uint64_t hash = words[i];
    buckets.push_back(static_cast<uint32_t>(hash >> shift));
    for (size_t n = 1; n < order && n <= i; ++n) {
      hash = (hash ^ (hash >> 29)) * 0x9e3779b97f4a7c15ull + words[i - n];
      buckets.push_back(static_cast<uint32_t>((hash * 0xd6e8feb86659fd93ull) >> shift));
    }
  }
}

LinearScorer::LinearScorer(std::span<const float> weights, std::span<const float> biases,
                           GramRules rules)
    : weights_(weights), biases_(biases.begin(), biases.end()), rules_(rules) {
  check(rules);
  MJ_CHECK(!biases.empty(), "biases must not be empty");
  const size_t want = (size_t{1} << rules.bits) * biases.size();
  MJ_CHECK(weights.size() == want, "weights must have ", want, " items, got ", weights.size());
}

int64_t LinearScorer::score(std::string_view text, Scratch& scratch, std::span<double> z) const {
  scratch.buckets.clear();
  gram_buckets(text, rules_, scratch.words, scratch.buckets);
  const double scale = static_cast<double>(scale_of(scratch.buckets.size()));
  const size_t columns = biases_.size();
  for (size_t c = 0; c < columns; ++c)
    z[c] = static_cast<double>(biases_[c]) +
           scale * gather(weights_.data(), scratch.buckets, columns, c);
  return static_cast<int64_t>(scratch.buckets.size());
}

LinearTrainer::LinearTrainer(int bits, int columns) : columns_(columns) {
  check(GramRules{bits, 1, 1});
  MJ_CHECK(columns >= 1 && columns != 2, "columns must be 1, or 3 and more, got ", columns);
  const size_t size = (size_t{1} << bits) * static_cast<size_t>(columns);
  weights_.assign(size, 0.0f);
  squares_.assign(size, 0.0f);
  biases_.assign(static_cast<size_t>(columns), 0.0f);
  bias_squares_.assign(static_cast<size_t>(columns), 0.0f);
}

double LinearTrainer::epoch(const Examples& examples, std::span<const int64_t> order, double rate,
                            int batch, int threads) {
  MJ_CHECK(batch >= 1, "batch must be at least 1, got ", batch);
  check_examples(examples, columns_, weights_.size() / static_cast<size_t>(columns_));
  for (const int64_t document : order)
    MJ_CHECK(document >= 0 && document < static_cast<int64_t>(examples.labels.size()),
             "order must name documents below ", examples.labels.size(), ", found ", document);
  double loss = 0;
  const auto step = static_cast<size_t>(batch);
  for (size_t at = 0; at < order.size(); at += step) {
    const auto part = order.subspan(at, std::min(step, order.size() - at));
    foresee(examples, part, threads);
    change(examples, part, static_cast<float>(rate), threads);
    for (const double one : losses_) loss += one;
  }
  return order.empty() ? 0 : loss / static_cast<double>(order.size());
}

void LinearTrainer::foresee(const Examples& examples, std::span<const int64_t> batch,
                            int threads) {
  const auto columns = static_cast<size_t>(columns_);
  slopes_.resize(batch.size() * columns);
  losses_.resize(batch.size());
  run_threads(threads, static_cast<int64_t>(batch.size()), [&](int, int64_t first, int64_t last) {
    std::vector<double> z(columns);
    for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i) {
      const auto document = static_cast<size_t>(batch[i]);
      const auto begin = static_cast<size_t>(examples.starts[document]);
      const auto size = static_cast<size_t>(examples.starts[document + 1]) - begin;
      const auto buckets = examples.features.subspan(begin, size);
      const double scale = static_cast<double>(scale_of(size));
      for (size_t c = 0; c < columns; ++c)
        z[c] = static_cast<double>(biases_[c]) + scale * gather(weights_.data(), buckets, columns, c);
      losses_[i] = slope(z, examples.labels[document]);
      const float factor = examples.importance[document];
      for (size_t c = 0; c < columns; ++c)
        slopes_[i * columns + c] = static_cast<float>(z[c]) * factor;
    }
  });
}

void LinearTrainer::change(const Examples& examples, std::span<const int64_t> batch, float rate,
                           int threads) {
  const auto columns = static_cast<size_t>(columns_);
  for (size_t i = 0; i < batch.size(); ++i)
    for (size_t c = 0; c < columns; ++c) {
      const float g = slopes_[i * columns + c];
      bias_squares_[c] += g * g;
      biases_[c] -= rate * g / std::sqrt(bias_squares_[c] + TINY);
    }
  const auto buckets = static_cast<int64_t>(weights_.size() / columns);
  run_threads(threads, buckets, [&](int, int64_t first, int64_t last) {
    change_range(examples, batch, rate, static_cast<uint32_t>(first), static_cast<uint64_t>(last));
  });
}

void LinearTrainer::change_range(const Examples& examples, std::span<const int64_t> batch,
                                 float rate, uint32_t first, uint64_t last) {
  const auto columns = static_cast<size_t>(columns_);
  for (size_t i = 0; i < batch.size(); ++i) {
    const auto document = static_cast<size_t>(batch[i]);
    const auto* begin = examples.features.data() + examples.starts[document];
    const auto* end = examples.features.data() + examples.starts[document + 1];
    const float scale = scale_of(static_cast<size_t>(end - begin));
    const auto* feature = std::lower_bound(begin, end, first);
    for (; feature != end && *feature < last; ++feature) {
      for (size_t c = 0; c < columns; ++c) {
        const float g = slopes_[i * columns + c] * scale;
        const size_t at = *feature * columns + c;
        squares_[at] += g * g;
        weights_[at] -= rate * g / std::sqrt(squares_[at] + TINY);
      }
    }
  }
}

}  // namespace mj
