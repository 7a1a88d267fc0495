// The only file that sees pybind11: checks arrays, releases the GIL, calls the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "arrays.h"
#include "copies/bloom.h"
#include "copies/hash.h"
#include "copies/links.h"
#include "copies/runs.h"
#include "copies/texts.h"

namespace py = pybind11;

namespace {

// The bytes of each text, a string or its UTF-8; they live as long as the list does.
std::vector<std::string_view> views_of(const py::list& texts) {
  std::vector<std::string_view> views;
  views.reserve(texts.size());
  for (const auto& text : texts) {
    if (PyBytes_Check(text.ptr())) {
      views.emplace_back(PyBytes_AS_STRING(text.ptr()),
                         static_cast<size_t>(PyBytes_GET_SIZE(text.ptr())));
      continue;
    }
    MJ_CHECK(PyUnicode_Check(text.ptr()), "texts must be strings or bytes, got ",
             Py_TYPE(text.ptr())->tp_name, " at ", views.size());
    Py_ssize_t size = 0;
    const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (!bytes) throw py::error_already_set();
    views.emplace_back(bytes, static_cast<size_t>(size));
  }
  return views;
}

py::array utf8_sizes(const py::list& texts) {
  const auto views = views_of(texts);
  std::vector<int64_t> sizes;
  sizes.reserve(views.size());
  for (const auto& view : views) sizes.push_back(static_cast<int64_t>(view.size()));
  return mj::hand_over(std::move(sizes));
}

// A vector as an array of rows.
template <typename T>
py::array rows_of(std::vector<T>&& values, size_t width) {
  const auto rows = width ? values.size() / width : 0;
  return mj::hand_over(std::move(values)).reshape({rows, width});
}

std::vector<mj::Entry> entries_of(const py::array& keys, const py::array& numbers) {
  const auto key_view = mj::view<uint64_t>(keys, "keys");
  const auto number_view = mj::view<int64_t>(numbers, "numbers");
  MJ_CHECK(key_view.size() == number_view.size(), "numbers must hold ", key_view.size(),
           " values, got ", number_view.size());
  std::vector<mj::Entry> entries(key_view.size());
  for (size_t i = 0; i < entries.size(); ++i) entries[i] = {key_view[i], number_view[i]};
  return entries;
}

py::array edges_array(const std::vector<mj::Edge>& edges) {
  std::vector<int64_t> flat;
  flat.reserve(2 * edges.size());
  for (const auto& edge : edges) flat.insert(flat.end(), {edge.high, edge.low});
  return rows_of(std::move(flat), 2);
}

std::vector<mj::Edge> edges_of(const py::array& edges) {
  MJ_CHECK(py::isinstance<py::array_t<int64_t>>(edges), "edges must be int64");
  MJ_CHECK(edges.ndim() == 2 && edges.shape(1) == 2, "edges must be [edges, 2]");
  MJ_CHECK(edges.flags() & py::array::c_style, "edges must be contiguous");
  const auto* at = static_cast<const int64_t*>(edges.data());
  std::vector<mj::Edge> result(static_cast<size_t>(edges.shape(0)));
  for (size_t i = 0; i < result.size(); ++i) result[i] = {at[2 * i], at[2 * i + 1]};
  return result;
}

void sort_entries(py::array keys, py::array numbers, int threads) {
  const auto key_view = mj::writable_view<uint64_t>(keys, "keys");
  const auto number_view = mj::writable_view<int64_t>(numbers, "numbers");
  auto entries = entries_of(keys, numbers);
  const py::gil_scoped_release released;
  mj::sort_entries(entries, threads);
  for (size_t i = 0; i < entries.size(); ++i) {
    key_view[i] = entries[i].key;
    number_view[i] = entries[i].number;
  }
}

py::array run_stars(const py::array& keys, const py::array& numbers) {
  const auto entries = entries_of(keys, numbers);
  const auto edges = [&] {
    const py::gil_scoped_release released;
    return mj::run_stars(entries);
  }();
  return edges_array(edges);
}

mj::Signatures signatures_of(const py::array& signatures, const std::string& measure) {
  MJ_CHECK(py::isinstance<py::array_t<uint8_t>>(signatures), "signatures must be uint8");
  MJ_CHECK(signatures.ndim() == 2 && signatures.shape(1) > 0, "signatures must be [rows, width]");
  MJ_CHECK(signatures.flags() & py::array::c_style, "signatures must be contiguous");
  mj::Signatures found{{static_cast<const uint8_t*>(signatures.data()),
                        static_cast<size_t>(signatures.size())},
                       static_cast<size_t>(signatures.shape(1)),
                       mj::Measure::kEqual};
  if (measure == "minhash") {
    found.measure = mj::Measure::kMinhash;
  } else if (measure == "hamming") {
    found.measure = mj::Measure::kHamming;
  } else {
    MJ_CHECK(measure == "equal", "measure must be equal, hamming or minhash, got ", measure);
  }
  return found;
}

py::array near_edges(const py::array& keys, const py::array& numbers, const py::array& rows,
                     const py::array& signatures, const std::string& measure, double least,
                     int64_t most) {
  const auto entries = entries_of(keys, numbers);
  const auto row_view = mj::view<int64_t>(rows, "rows");
  const auto found = signatures_of(signatures, measure);
  const auto edges = [&] {
    const py::gil_scoped_release released;
    return mj::near_edges(entries, row_view, found, least, most);
  }();
  return edges_array(edges);
}

py::array nearness(const py::array& signatures, const py::array& pairs, const std::string& measure) {
  const auto found = signatures_of(signatures, measure);
  const auto rows = signatures.shape(0);
  std::vector<double> result;
  for (const auto& [a, b] : edges_of(pairs)) {
    MJ_CHECK(a >= 0 && a < rows && b >= 0 && b < rows, "pairs: (", a, ", ", b, ") must be below ",
             rows);
    result.push_back(found.nearness(static_cast<size_t>(a), static_cast<size_t>(b)));
  }
  return mj::hand_over(std::move(result));
}

mj::SpanKind kind_of(const std::string& kind) {
  if (kind == "line") return mj::SpanKind::kLine;
  if (kind == "paragraph") return mj::SpanKind::kParagraph;
  MJ_CHECK(kind == "sentence", "kind must be line, paragraph or sentence, got ", kind);
  return mj::SpanKind::kSentence;
}

py::tuple minhash(const mj::Shingler& shingler, const py::list& texts, int bands, int rows,
                  uint64_t seed, int threads) {
  MJ_CHECK(bands >= 1 && rows >= 1 && bands <= 65536 && rows <= 65536,
           "bands and rows must be from 1 to 65536, got ", bands, " and ", rows);
  const auto views = views_of(texts);
  auto out = [&] {
    const py::gil_scoped_release released;
    const mj::Permutations permutations(bands * rows, seed, shingler.machine());
    return mj::minhash_texts(views, shingler, permutations, bands, rows, threads);
  }();
  const auto height = static_cast<size_t>(bands);
  return py::make_tuple(rows_of(std::move(out.keys), height),
                        rows_of(std::move(out.signatures), height * static_cast<size_t>(rows)),
                        mj::hand_over(std::move(out.shingles)));
}

py::tuple simhash(const mj::Shingler& shingler, const py::list& texts, const py::array& masks,
                  int threads) {
  const auto views = views_of(texts);
  const auto mask_view = mj::view<uint64_t>(masks, "masks");
  MJ_CHECK(!mask_view.empty(), "masks must hold at least one");
  auto out = [&] {
    const py::gil_scoped_release released;
    return mj::simhash_texts(views, shingler, mask_view, threads);
  }();
  return py::make_tuple(mj::hand_over(std::move(out.values)),
                        rows_of(std::move(out.keys), mask_view.size()),
                        mj::hand_over(std::move(out.shingles)));
}

py::tuple text_hashes(const mj::Shingler& shingler, const py::list& texts, int threads) {
  const auto views = views_of(texts);
  auto out = [&] {
    const py::gil_scoped_release released;
    return mj::hash_texts(views, shingler, threads);
  }();
  return py::make_tuple(rows_of(std::move(out.hashes), 2), mj::hand_over(std::move(out.lengths)));
}

py::tuple spans(const mj::Shingler& shingler, const py::list& texts, const std::string& kind,
                int64_t least, int threads) {
  MJ_CHECK(least >= 0, "least must not be negative, got ", least);
  const auto views = views_of(texts);
  const auto wanted = kind_of(kind);
  auto out = [&] {
    const py::gil_scoped_release released;
    return mj::span_texts(views, shingler, wanted, static_cast<size_t>(least), threads);
  }();
  return py::make_tuple(rows_of(std::move(out.hashes), 2), rows_of(std::move(out.places), 2),
                        mj::hand_over(std::move(out.ends)));
}

py::array shingles(const mj::Shingler& shingler, const std::string& text) {
  mj::ShingleRoom room;
  shingler.of(text, room);
  return mj::hand_over(std::move(room.shingles));
}

double jaccard(const mj::Shingler& shingler, const std::string& a, const std::string& b) {
  const py::gil_scoped_release released;
  mj::ShingleRoom one, other;
  shingler.of(a, one);
  shingler.of(b, other);
  return mj::jaccard(one.shingles, other.shingles);
}

py::array add_edges(mj::Links& links, const py::array& edges) {
  const auto given = edges_of(edges);
  const auto left = [&] {
    const py::gil_scoped_release released;
    return links.add(given);
  }();
  return edges_array(left);
}

py::array tops(mj::Links& links, const py::array& vertices) {
  const auto view = mj::view<int64_t>(vertices, "vertices");
  std::vector<int64_t> result;
  result.reserve(view.size());
  for (const int64_t vertex : view) {
    MJ_CHECK(vertex >= links.first() && vertex < links.last(), "vertices: ", vertex,
             " is not in the share [", links.first(), ", ", links.last(), ")");
    result.push_back(links.top(vertex));
  }
  return mj::hand_over(std::move(result));
}

std::unique_ptr<mj::Links> load_links(int64_t first, const py::array& parents) {
  const auto view = mj::view<int64_t>(parents, "parents");
  return std::make_unique<mj::Links>(first, std::vector<int64_t>(view.begin(), view.end()));
}

py::array add_keys(mj::Bloom& bloom, const py::array& keys) {
  const auto view = mj::view<uint64_t>(keys, "keys");
  std::vector<uint8_t> present(view.size());
  {
    const py::gil_scoped_release released;
    bloom.add(view, present);
  }
  return mj::hand_over(std::move(present)).view("bool");
}

std::string_view bytes_view(const py::bytes& data) { return static_cast<std::string_view>(data); }

void define_hashes(py::module_& m) {
  m.def("hash128", [](const py::bytes& data, uint32_t seed) {
    const auto [first, second] = mj::hash128(bytes_view(data), seed);
    return (py::int_(second) << py::int_(64)) | py::int_(first);
  }, py::arg("data"), py::arg("seed") = 0, "MurmurHash3_x64_128 of some bytes.");
}

mj::Machine machine_called(const std::string& name) {
  if (name.empty()) return mj::fastest_here();
  if (name == "avx512") return mj::Machine::avx512;
  if (name == "avx2") return mj::Machine::avx2;
  if (name == "sse4.1") return mj::Machine::sse41;
  MJ_CHECK(name == "plain", "machine must be plain, sse4.1, avx2 or avx512, got ", name);
  return mj::Machine::plain;
}

// Whether `block` holds one of some names between quotes.
bool mentions(const py::bytes& block, const std::vector<std::string>& names) {
  const auto bytes = bytes_view(block);
  const py::gil_scoped_release released;
  for (size_t at = bytes.find('"'); at != bytes.npos; at = bytes.find('"', at + 1)) {
    const auto rest = bytes.substr(at + 1);
    for (const auto& name : names) {
      const size_t size = name.size();
      if (rest.size() > size && rest[size] == '"' && rest.starts_with(name)) return true;
    }
  }
  return false;
}

void define_shingles(py::module_& m) {
  m.def("mentions", &mentions, py::arg("block"), py::arg("names"),
        "Whether some bytes hold one of `names` between two quotes, as JSON has its keys.");
  m.def("utf8_sizes", &utf8_sizes, py::arg("texts"),
        "int64 [texts], bytes of each in UTF-8, which Python then holds for what comes next.");
  py::class_<mj::Shingler>(m, "Shingles", "Texts folded by a table, as words, and runs of words.")
      .def(py::init([](const py::array& table, int words, int letters, double longest,
                       const std::string& machine) {
        return mj::Shingler(mj::view<uint32_t>(table, "table"), {words, letters, longest},
                            machine_called(machine));
      }), py::arg("table"), py::kw_only(), py::arg("words"), py::arg("letters"), py::arg("longest"),
      py::arg("machine") = "",
      "table: uint32 [131072], of each code point the letter that it counts as, or 0: separates\n"
      "words, 1: an accent, left out, 2: a digit, a run of which is one 0.\n"
      "words: in a shingle.  letters: in one of a text whose words have more than `longest`\n"
      "letters on average.\n"
      "machine: plain, sse4.1, avx2 or avx512, for which the code is; '' for the fastest.  Nothing\n"
      "depends on it but the speed.")
      .def("minhash", &minhash, py::arg("texts"), py::kw_only(), py::arg("bands"), py::arg("rows"),
           py::arg("seed"), py::arg("threads") = 1,
           "Returns keys uint64 [texts, bands], signatures uint8 [texts, bands * rows] (the lower\n"
           "8 bits of each minimum), shingles int64 [texts]; where they are 0 keys mean nothing.")
      .def("simhash", &simhash, py::arg("texts"), py::kw_only(), py::arg("masks"),
           py::arg("threads") = 1,
           "masks: uint64, the bits that each key is made of.  Returns values uint64 [texts],\n"
           "keys uint64 [texts, masks], shingles int64 [texts].")
      .def("text_hashes", &text_hashes, py::arg("texts"), py::kw_only(), py::arg("threads") = 1,
           "Returns uint64 [texts, 2], 128-bit hashes of the letters, and int64 [texts], bytes of\n"
           "the letters.")
      .def("spans", &spans, py::arg("texts"), py::kw_only(), py::arg("kind"), py::arg("least"),
           py::arg("threads") = 1,
           "Lines, paragraphs or sentences of at least `least` bytes of letters.\n"
           "Returns hashes uint64 [spans, 2], places int64 [spans, 2] (start, end in UTF-8 bytes,\n"
           "space behind it included), ends int64 [texts]: where each text's spans end.")
      .def("of", &shingles, py::arg("text"), "The shingles of a text, uint64, repeated ones too.")
      .def("normalise", &mj::Shingler::normalise, py::arg("text"),
           "The letters that count, words parted by one space.")
      .def("jaccard", &jaccard, py::arg("a"), py::arg("b"),
           "Exact Jaccard similarity of the shingles of two texts.");
}

void define_runs(py::module_& m) {
  m.def("sort_entries", &sort_entries, py::arg("keys"), py::arg("numbers"), py::kw_only(),
        py::arg("threads") = 1,
        "Sort both arrays in place by (key, number).  keys: uint64 [n].  numbers: int64 [n].");
  m.def("run_stars", &run_stars, py::arg("keys"), py::arg("numbers"),
        "Of sorted entries, from each number of a run of equal keys an edge to the run's first.\n"
        "Returns int64 [edges, 2], the higher number first.");
  m.def("near_edges", &near_edges, py::arg("keys"), py::arg("numbers"), py::kw_only(),
        py::arg("rows"), py::arg("signatures"), py::arg("measure"), py::arg("least"),
        py::arg("most"),
        "Of each run of equal keys a spanning forest of the pairs whose nearness is `least` or\n"
        "more.\n\n"
        "rows: int64 [n], of each entry its row in signatures, uint8 [rows, width].\n"
        "measure: equal (0 or 1), hamming (minus the bits that differ) or minhash (estimate).\n"
        "most: earlier items of its run that one is compared with.");
  m.def("nearness", &nearness, py::arg("signatures"), py::arg("pairs"), py::kw_only(),
        py::arg("measure"), "Of int64 [pairs, 2], rows of signatures; returns float64 [pairs].");
}

void define_links(py::module_& m) {
  py::class_<mj::Links>(m, "Links", "Union-find over a share of the vertices; see csrc/copies.")
      .def(py::init<int64_t, int64_t>(), py::arg("first"), py::arg("last"))
      .def_static("load", &load_links, py::arg("first"), py::arg("parents"))
      .def("add", &add_edges, py::arg("edges"),
           "Take edges int64 [n, 2] (high, low) whose high ends lie in the share; returns those\n"
           "that are left for lower shares.")
      .def("tops", &tops, py::arg("vertices"), "Of int64 [n], the tops of their trees in the share.")
      .def("parents", [](const mj::Links& links) {
        return mj::hand_over(std::vector<int64_t>(links.parents()));
      }, "int64 [last - first]: itself, or a lower vertex.");
  py::class_<mj::Bloom>(m, "Bloom", "A Bloom filter of 64-bit keys.")
      .def(py::init<int64_t, double>(), py::arg("expected"), py::arg("rate"))
      .def("add", &add_keys, py::arg("keys"),
           "Add uint64 [n] in order; returns bool [n], whether each seemed to be there before.")
      .def_property_readonly("bits", &mj::Bloom::bits)
      .def_property_readonly("probes", &mj::Bloom::probes);
}

}  // namespace

PYBIND11_MODULE(_copies, m) {
  m.doc() = "Fingerprints of texts and what they have in common, in C++.  Wrong arguments raise "
            "ValueError.";
  define_hashes(m);
  define_shingles(m);
  define_runs(m);
  define_links(m);
}
