// The only file that sees pybind11: checks arrays, releases the GIL, calls the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "arrays.h"
#include "check.h"
#include "ngrams/gram_scorer.h"
#include "ngrams/kneser_ney.h"
#include "ngrams/linear.h"
#include "ngrams/tables.h"
#include "ngrams/words.h"
#include "threads.h"

namespace py = pybind11;

namespace {

mj::Splitting splitting(bool folded) {
  return folded ? mj::Splitting::folded : mj::Splitting::plain;
}

py::array word_hashes(std::string_view text, bool folded, bool lines) {
  std::vector<uint64_t> hashes;
  {
    const py::gil_scoped_release released;
    mj::hash_words(text, splitting(folded), lines, hashes);
  }
  return mj::hand_over(std::move(hashes));
}

mj::GramRules gram_rules(int bits, int order, int64_t limit) {
  const mj::GramRules rules{bits, order, limit};
  mj::check(rules);
  return rules;
}

py::array gram_buckets(std::string_view text, int bits, int order, int64_t limit) {
  const auto rules = gram_rules(bits, order, limit);
  std::vector<uint64_t> words;
  std::vector<uint32_t> buckets;
  {
    const py::gil_scoped_release released;
    mj::gram_buckets(text, rules, words, buckets);
    std::sort(buckets.begin(), buckets.end());
  }
  return mj::hand_over(std::move(buckets));
}

// Texts as views that live as long as the list does.
std::vector<std::string_view> views(const py::list& texts) {
  std::vector<std::string_view> found;
  found.reserve(texts.size());
  for (const auto text : texts) found.push_back(text.cast<std::string_view>());
  return found;
}

// A scorer and the arrays that it looks into.
class Scorer {
 public:
  Scorer(py::array weights, py::array biases, int bits, int order, int64_t limit)
      : weights_(std::move(weights)),
        biases_(std::move(biases)),
        scorer_(mj::view<float>(weights_, "weights"), mj::view<float>(biases_, "biases"),
                mj::GramRules{bits, order, limit}) {}

  std::vector<double> score(std::string_view text) const {
    std::vector<double> z(static_cast<size_t>(scorer_.columns()));
    const py::gil_scoped_release released;
    thread_local mj::LinearScorer::Scratch scratch;
    scorer_.score(text, scratch, z);
    return z;
  }

  py::array score_many(const py::list& texts, int threads) const {
    const auto found = views(texts);
    const auto columns = static_cast<size_t>(scorer_.columns());
    std::vector<double> z(found.size() * columns);
    {
      const py::gil_scoped_release released;
      mj::run_threads(threads, static_cast<int64_t>(found.size()),
                      [&](int, int64_t first, int64_t last) {
                        mj::LinearScorer::Scratch scratch;
                        for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(last); ++i)
                          scorer_.score(found[i], scratch, {z.data() + i * columns, columns});
                      });
    }
    return mj::hand_over(std::move(z)).reshape({-1, scorer_.columns()});
  }

 private:
  py::array weights_, biases_;
  mj::LinearScorer scorer_;
};

class Trainer {
 public:
  Trainer(int bits, int columns) : trainer_(bits, columns), columns_(columns) {}

  double epoch(const py::array& features, const py::array& starts, const py::array& labels,
               const py::array& importance, const py::array& order, double rate, int batch,
               int threads) {
    const mj::Examples examples{
        mj::view<uint32_t>(features, "features"), mj::view<int64_t>(starts, "starts"),
        mj::view<int32_t>(labels, "labels"), mj::view<float>(importance, "importance")};
    const auto order_view = mj::view<int64_t>(order, "order");
    const py::gil_scoped_release released;
    return trainer_.epoch(examples, order_view, rate, batch, threads);
  }

  py::array weights() const {
    auto copy = trainer_.weights();
    return mj::hand_over(std::move(copy)).reshape({-1, columns_});
  }

  py::array biases() const {
    auto copy = trainer_.biases();
    return mj::hand_over(std::move(copy));
  }

 private:
  mj::LinearTrainer trainer_;
  int columns_;
};

void bind_linear(py::module_& m) {
  py::class_<Scorer>(m, "LinearScorer",
                     "Scores texts by a linear model over hashed n-grams of words.\n\n"
                     "weights: float32 [2^bits * columns].  biases: float32 [columns].\n"
                     "order: words in the longest n-gram.  limit: bytes of a text looked at.")
      .def(py::init<py::array, py::array, int, int, int64_t>(), py::arg("weights"),
           py::arg("biases"), py::kw_only(), py::arg("bits"), py::arg("order"), py::arg("limit"))
      .def("score", &Scorer::score, py::arg("text"), "z of each column, as a list.")
      .def("score_many", &Scorer::score_many, py::arg("texts"), py::kw_only(),
           py::arg("threads") = 1, "z as float64 [texts, columns].");

  py::class_<Trainer>(m, "LinearTrainer",
                      "AdaGrad for such a model; the result does not depend on the threads.\n\n"
                      "columns: 1 for two labels, else one a label.")
      .def(py::init<int, int>(), py::kw_only(), py::arg("bits"), py::arg("columns"))
      .def("epoch", &Trainer::epoch, py::arg("features"), py::arg("starts"), py::arg("labels"),
           py::arg("importance"), py::arg("order"), py::kw_only(), py::arg("rate"),
           py::arg("batch") = 128, py::arg("threads") = 1,
           "Learn from documents once, in the order given; the mean loss before each change.\n\n"
           "features: uint32 [F], ascending in a document.  starts: int64 [documents + 1].\n"
           "labels: int32 [documents].  importance: float32 [documents], factor of the gradient.\n"
           "order: int64 [any], numbers of documents.")
      .def("weights", &Trainer::weights, "float32 [2^bits, columns], a copy.")
      .def("biases", &Trainer::biases, "float32 [columns], a copy.");
}

py::array fill_table(const py::array& keys, const py::array& values) {
  const auto key_view = mj::view<uint64_t>(keys, "keys");
  const auto value_view = mj::view<uint64_t>(values, "values");
  MJ_CHECK(key_view.size() == value_view.size(), "keys and values must be of one size, got ",
           key_view.size(), " and ", value_view.size());
  std::vector<uint64_t> flat(2 * mj::slots_for(key_view.size()));
  {
    const py::gil_scoped_release released;
    for (size_t i = 0; i < key_view.size(); ++i) {
      MJ_CHECK(key_view[i] != 0, "keys must not be 0, item ", i, " is");
      MJ_CHECK(mj::insert(flat, key_view[i], value_view[i]), "keys must differ, item ", i,
               " is an earlier one");
    }
  }
  return mj::hand_over(std::move(flat));
}

py::array gram_keys(const py::array& words, int order) {
  MJ_CHECK(order >= 1 && order <= mj::MAX_ORDER, "order must be from 1 to 5, got ", order);
  const auto word_view = mj::view<uint32_t>(words, "words");
  const auto size = static_cast<size_t>(order);
  MJ_CHECK(word_view.size() % size == 0, "words must be [n-grams, order], got ", word_view.size());
  std::vector<uint64_t> keys(word_view.size() / size);
  for (size_t i = 0; i < keys.size(); ++i)
    for (size_t place = size; place-- > 0;)
      keys[i] = mj::extend(keys[i], word_view[i * size + place]);
  return mj::hand_over(std::move(keys));
}

py::dict train_grams(const py::array& words, uint32_t vocabulary, int order, int threads) {
  const auto word_view = mj::view<uint32_t>(words, "words");
  auto model = [&] {
    const py::gil_scoped_release released;
    return mj::train_grams(word_view, vocabulary, order, threads);
  }();
  py::list tables, discounts;
  for (auto& table : model.tables) tables.append(mj::hand_over(std::move(table)));
  for (const auto& found : model.discounts)
    discounts.append(py::make_tuple(found.of[0], found.of[1], found.of[2], found.guessed));
  py::dict result;
  result["singles"] = mj::hand_over(std::move(model.singles)).reshape({-1, 2});
  result["tables"] = tables;
  result["counts"] = model.counts;
  result["discounts"] = discounts;
  return result;
}

// A back-off model and the arrays that it looks into.
class Grams {
 public:
  Grams(py::array singles, py::list tables, py::object vocabulary, bool folded,
        double unknown_words)
      : singles_(std::move(singles)),
        tables_(std::move(tables)),
        vocabulary_(std::move(vocabulary)),
        splitting_(splitting(folded)),
        scorer_(mj::view<float>(singles_, "singles"), look_into(tables_), unknown_words),
        words_(vocabulary_.is_none() ? SPARE
                                     : mj::view<uint64_t>(vocabulary_, "vocabulary")) {}

  std::pair<double, int64_t> score_text(std::string_view text) const {
    const py::gil_scoped_release released;
    thread_local std::vector<uint64_t> hashes;
    hashes.clear();
    mj::hash_words(text, splitting_, true, hashes);
    return total(scorer_.score(mj::number_words(hashes, words_)));
  }

  std::pair<double, int64_t> score_lines(const py::array& words) const {
    const auto word_view = mj::view<uint32_t>(words, "words");
    const py::gil_scoped_release released;
    return total(scorer_.score(word_view));
  }

  py::array score_words(const py::array& words) const {
    return mj::hand_over(scorer_.score_words(mj::view<uint32_t>(words, "words")));
  }

 private:
  static constexpr std::array<uint64_t, 4> SPARE{};

  static std::pair<double, int64_t> total(const std::vector<mj::LineScore>& lines) {
    std::pair<double, int64_t> sum{};
    for (const auto& line : lines) {
      sum.first += line.log_p;
      sum.second += line.words;
    }
    return sum;
  }

  static std::vector<mj::Table> look_into(const py::list& tables) {
    std::vector<mj::Table> found;
    for (const auto table : tables)
      found.emplace_back(mj::view<uint64_t>(table.cast<py::array>(), "tables"));
    return found;
  }

  py::array singles_;
  py::list tables_;
  py::object vocabulary_;
  mj::Splitting splitting_;
  mj::GramScorer scorer_;
  mj::Table words_;
};

void bind_grams(py::module_& m) {
  m.def("fill_table", &fill_table, py::arg("keys"), py::arg("values"),
        "uint64 [slots * 2], a table from keys (uint64 [items], not 0, all different) to values\n"
        "(uint64 [items]): key and value, or 0 and 0, in each slot.");
  m.def("gram_keys", &gram_keys, py::arg("words"), py::kw_only(), py::arg("order"),
        "uint64 [n-grams]: the keys of n-grams in tables.\n\nwords: uint32 [n-grams * order].");
  m.def("train_grams", &train_grams, py::arg("words"), py::kw_only(), py::arg("vocabulary"),
        py::arg("order"), py::arg("threads") = 1,
        "Interpolated modified Kneser-Ney estimates.\n\n"
        "words: uint32 [tokens], 0 unknown, 2 at the end of each line, others from 3 to\n"
        "vocabulary - 1.  Returns singles float32 [vocabulary, 2] (log10 of probability and of\n"
        "back-off weight), tables (of 2, 3.. words; values are two such floats), counts and\n"
        "discounts (three, and whether they are guessed) by order.");

  py::class_<Grams>(m, "GramScorer",
                    "Scores text by a back-off model of n-grams.\n\n"
                    "singles: float32 [vocabulary * 2].  tables: uint64 [slots * 2], of 2, 3.. words.\n"
                    "vocabulary: table from word_hashes to word numbers, or None.\n"
                    "unknown_words: how many share the unknown word's probability.")
      .def(py::init<py::array, py::list, py::object, bool, double>(), py::arg("singles"),
           py::arg("tables"), py::kw_only(), py::arg("vocabulary") = py::none(),
           py::arg("folded") = true, py::arg("unknown_words") = 1.0)
      .def("score_text", &Grams::score_text, py::arg("text"),
           "(log10 p, words) of all lines that have a word; their ends count as words.")
      .def("score_lines", &Grams::score_lines, py::arg("words"),
           "The same for uint32 [tokens] word numbers, 2 at the end of each line.")
      .def("score_words", &Grams::score_words, py::arg("words"),
           "float32 [tokens]: log10 p of each word after those before it in its line.");
}

}  // namespace

PYBIND11_MODULE(_ngrams, m) {
  m.doc() = "Models of word n-grams, in C++.  Wrong arguments raise ValueError.";
  m.attr("WORDS_VERSION") = mj::WORDS_VERSION;
  m.attr("GRAMS_VERSION") = mj::GRAMS_VERSION;

  m.def("word_hashes", &word_hashes, py::arg("text"), py::kw_only(), py::arg("folded") = true,
        py::arg("lines") = false,
        "uint64 [words]: a hash of each word; with `lines`, 0 after each line that has a word.\n\n"
        "folded: words as models of raw text see them; else what stands between white space.");
  m.def("gram_buckets", &gram_buckets, py::arg("text"), py::kw_only(), py::arg("bits"),
        py::arg("order"), py::arg("limit") = int64_t{1} << 40,
        "uint32 [n-grams of 1..order words]: their buckets below 2^bits, ascending.\n\n"
        "limit: bytes of the text that are looked at.");
  bind_linear(m);
  bind_grams(m);
}
