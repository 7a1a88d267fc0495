#include "ngrams/kneser_ney.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <utility>

#include "check.h"
#include "ngrams/tables.h"
#include "threads.h"

namespace mj {

namespace {

__extension__ typedef unsigned __int128 Key;  // the last word in the highest bits: suffix order

constexpr float NEVER = -99.0f;  // log10 of the probability that a line begins again

struct Grams {
  std::vector<Key> keys;         // ascending
  std::vector<uint32_t> counts;  // adjusted: of the highest order and at a line's begin as found,
                                 // else the number of different words before
};

uint32_t word_at(Key key, int place) {
  return static_cast<uint32_t>(key >> (WORD_BITS * place)) & ((1u << WORD_BITS) - 1u);
}

// Of the words in places [first, last).
uint64_t hash_of(Key key, int first, int last) {
  uint64_t hash = 0;
  for (int place = last - 1; place >= first; --place) hash = extend(hash, word_at(key, place));
  return hash;
}

// Sort runs in threads, then merge neighbours.
void sort_keys(std::vector<Key>& keys, int threads) {
  const auto count = static_cast<int64_t>(keys.size());
  const auto at = [&](int64_t run) { return keys.begin() + count * run / threads; };
  run_threads(threads, count, [&](int, int64_t first, int64_t last) {
    std::sort(keys.begin() + first, keys.begin() + last);
  });
  for (int64_t width = 1; width < threads; width *= 2)
    for (int64_t run = 0; run + width < threads; run += 2 * width)
      std::inplace_merge(at(run), at(run + width), at(std::min<int64_t>(run + 2 * width, threads)));
}

Grams count_equal(std::vector<Key>&& keys, int threads) {
  sort_keys(keys, threads);
  Grams grams;
  size_t size = 0;
  for (size_t i = 0; i < keys.size();) {
    size_t end = i + 1;
    while (end < keys.size() && keys[end] == keys[i]) ++end;
    grams.counts.push_back(static_cast<uint32_t>(std::min<size_t>(end - i, UINT32_MAX)));
    keys[size++] = keys[i];
    i = end;
  }
  keys.resize(size);
  keys.shrink_to_fit();
  grams.keys = std::move(keys);
  return grams;
}

// n-grams of exactly `order` words; only those at a line's begin with `begins`.
std::vector<Key> keys_of(std::span<const uint32_t> words, int order, bool begins) {
  std::vector<Key> keys;
  if (!begins) keys.reserve(words.size());
  Key window = BEGIN;
  int size = 1;
  for (const uint32_t word : words) {
    if (size < order) {
      window |= static_cast<Key>(word) << (WORD_BITS * size++);
    } else {
      window = (window >> WORD_BITS) | (static_cast<Key>(word) << (WORD_BITS * (order - 1)));
      ++size;
    }
    if (begins ? size == order : size >= order) keys.push_back(window);
    if (word == END) {
      window = BEGIN;
      size = 1;
    }
  }
  return keys;
}

// Those one word shorter: what follows the first words, and what begins lines.
Grams shorten(const Grams& longer, Grams&& begins) {
  Grams grams;
  size_t b = 0;
  const auto push = [&](Key key, uint32_t count) {
    grams.keys.push_back(key);
    grams.counts.push_back(count);
  };
  for (size_t i = 0; i < longer.keys.size();) {
    const Key key = longer.keys[i] >> WORD_BITS;
    size_t end = i + 1;
    while (end < longer.keys.size() && longer.keys[end] >> WORD_BITS == key) ++end;
    for (; b < begins.keys.size() && begins.keys[b] < key; ++b) push(begins.keys[b], begins.counts[b]);
    push(key, static_cast<uint32_t>(end - i));
    i = end;
  }
  for (; b < begins.keys.size(); ++b) push(begins.keys[b], begins.counts[b]);
  return grams;
}

Discounts estimate(const std::vector<uint32_t>& counts) {
  std::array<double, 5> n{};
  for (const uint32_t count : counts)
    if (count <= 4) n[count] += 1;
  Discounts found{{0.5, 1.0, 1.5}, true};
  if (n[1] == 0 || n[2] == 0 || n[3] == 0) return found;
  const double y = n[1] / (n[1] + 2 * n[2]);
  std::array<double, 3> of{};
  for (size_t k = 1; k <= 3; ++k) {
    of[k - 1] = static_cast<double>(k) - static_cast<double>(k + 1) * y * n[k + 1] / n[k];
    if (of[k - 1] < 0 || of[k - 1] > static_cast<double>(k)) return found;
  }
  return {of, false};
}

double discount(const Discounts& discounts, uint32_t count) {
  return count == 0 ? 0.0 : discounts.of[std::min<uint32_t>(count, 3) - 1];
}

// What follows a context.
struct Followers {
  uint64_t sum = 0;
  std::array<uint64_t, 3> kinds{};  // words counted once, twice, three times and more

  void add(uint32_t count) {
    sum += count;
    if (count) kinds[std::min<uint32_t>(count, 3) - 1] += 1;
  }

  double back_off(const Discounts& discounts) const {
    double mass = 0;
    for (size_t k = 0; k < 3; ++k) mass += discounts.of[k] * static_cast<double>(kinds[k]);
    return sum ? mass / static_cast<double>(sum) : 1.0;
  }
};

// The n-grams of one order by the hash of their words: where to find each in Grams.
struct Finder {
  std::vector<uint64_t> flat;

  Finder(const Grams& grams, int order) : flat(2 * slots_for(grams.keys.size())) {
    for (size_t i = 0; i < grams.keys.size(); ++i)
      MJ_CHECK(insert(flat, hash_of(grams.keys[i], 0, order), i),
               "two n-grams of ", order, " words have one hash");
  }

  uint64_t at(uint64_t hash) const {
    const uint64_t* found = Table(flat).find(hash);
    MJ_CHECK(found, "an n-gram's shorter one is missing");
    return *found;
  }
};

class Estimation {
 public:
  Estimation(std::span<const uint32_t> words, uint32_t vocabulary, int order, int threads)
      : vocabulary_(vocabulary), order_(order), threads_(threads), grams_(order) {
    auto& highest = grams_[static_cast<size_t>(order - 1)];
    highest = count_equal(keys_of(words, order, false), threads);
    for (int n = order - 1; n >= 1; --n) {
      Grams begins;
      if (n > 1) begins = count_equal(keys_of(words, n, true), threads);
      at(n) = shorten(at(n + 1), std::move(begins));
    }
  }

  GramModel run() {
    GramModel model;
    for (int n = 1; n <= order_; ++n) {
      model.counts.push_back(at(n).keys.size());
      model.discounts.push_back(estimate(at(n).counts));
    }
    fill_singles(model);
    for (int n = 2; n <= order_; ++n) fill_table(model, n);
    return model;
  }

 private:
  Grams& at(int order) { return grams_[static_cast<size_t>(order - 1)]; }

  // p(w) = discounted share + what was discounted, spread evenly over all but BEGIN.
  void fill_singles(GramModel& model) {
    Followers all;
    for (const uint32_t count : at(1).counts) all.add(count);
    const double even = all.back_off(model.discounts[0]) / (vocabulary_ - 1.0);
    lower_.assign(vocabulary_, even);
    for (size_t i = 0; i < at(1).keys.size(); ++i) {
      const uint32_t count = at(1).counts[i];
      const double left = count - discount(model.discounts[0], count);
      lower_[word_at(at(1).keys[i], 0)] += left / static_cast<double>(all.sum);
    }
    model.singles.assign(size_t{2} * vocabulary_, 0.0f);
    for (size_t word = 0; word < vocabulary_; ++word)
      model.singles[2 * word] = static_cast<float>(std::log10(lower_[word]));
    model.singles[2 * BEGIN] = NEVER;
  }

  // Number, among those of the order below, of the n-gram in places [first, last).
  uint64_t shorter(Key key, int order, int first, const Finder* finder) const {
    if (order == 2) return word_at(key, first);
    return finder->at(hash_of(key, first, first + order - 1));
  }

  void fill_table(GramModel& model, int order) {
    const Grams& grams = at(order);
    const Discounts& discounts = model.discounts[static_cast<size_t>(order - 1)];
    std::unique_ptr<Finder> finder;
    if (order > 2) finder = std::make_unique<Finder>(at(order - 1), order - 1);
    std::vector<Followers> followers(lower_.size());
    std::vector<uint64_t> contexts(grams.keys.size());
    run_threads(threads_, static_cast<int64_t>(contexts.size()), [&](int, int64_t a, int64_t z) {
      for (auto i = static_cast<size_t>(a); i < static_cast<size_t>(z); ++i)
        contexts[i] = shorter(grams.keys[i], order, 0, finder.get());
    });
    for (size_t i = 0; i < contexts.size(); ++i) followers[contexts[i]].add(grams.counts[i]);
    std::vector<double> p(grams.keys.size());
    run_threads(threads_, static_cast<int64_t>(p.size()), [&](int, int64_t a, int64_t z) {
      for (auto i = static_cast<size_t>(a); i < static_cast<size_t>(z); ++i) {
        const Followers& of = followers[contexts[i]];
        const double left = grams.counts[i] - discount(discounts, grams.counts[i]);
        const uint64_t below = shorter(grams.keys[i], order, 1, finder.get());
        p[i] = left / static_cast<double>(of.sum) + of.back_off(discounts) * lower_[below];
      }
    });
    note_back_offs(model, order - 1, followers, discounts);
    write_table(model, order, p);
    lower_ = std::move(p);
  }

  void note_back_offs(GramModel& model, int order, const std::vector<Followers>& followers,
                      const Discounts& discounts) {
    for (size_t i = 0; i < followers.size(); ++i) {
      if (!followers[i].sum) continue;
      const auto back_off = static_cast<float>(std::log10(followers[i].back_off(discounts)));
      if (order == 1) {
        model.singles[2 * i + 1] = back_off;
        continue;
      }
      auto& flat = model.tables[static_cast<size_t>(order - 2)];
      const auto* found = Table(flat).find(hash_of(at(order).keys[i], 0, order));
      auto weight = std::bit_cast<Weight>(*found);
      weight.back_off = back_off;
      flat[static_cast<size_t>(found - flat.data())] = std::bit_cast<uint64_t>(weight);
    }
  }

  void write_table(GramModel& model, int order, const std::vector<double>& p) {
    const Grams& grams = at(order);
    std::vector<uint64_t> flat(2 * slots_for(grams.keys.size()));
    for (size_t i = 0; i < p.size(); ++i) {
      const Weight weight{static_cast<float>(std::log10(p[i])), 0.0f};
      insert(flat, hash_of(grams.keys[i], 0, order), std::bit_cast<uint64_t>(weight));
    }
    model.tables.push_back(std::move(flat));
  }

  uint32_t vocabulary_;
  int order_, threads_;
  std::vector<Grams> grams_;
  std::vector<double> lower_;  // probabilities of the order below, as Grams has them (words: dense)
};

}  // namespace

GramModel train_grams(std::span<const uint32_t> words, uint32_t vocabulary, int order,
                      int threads) {
  MJ_CHECK(order >= 2 && order <= MAX_ORDER, "order must be from 2 to 5, got ", order);
  MJ_CHECK(vocabulary > FIRST_WORD && vocabulary < (1u << WORD_BITS),
           "vocabulary must be from 4 to 2^25 - 1, got ", vocabulary);
  MJ_CHECK(!words.empty() && words.back() == END, "words must end with the end of a line");
  for (const uint32_t word : words)
    MJ_CHECK(word < vocabulary && word != BEGIN, "words must be below ", vocabulary,
             " and never the begin of a line, found ", word);
  return Estimation(words, vocabulary, order, threads).run();
}

}  // namespace mj
