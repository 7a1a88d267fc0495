// The only file that sees pybind11: reads strings, releases the GIL, calls the core.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "filters/characters.h"
#include "filters/lines.h"
#include "filters/words.h"

namespace py = pybind11;

namespace {

// The code points of a string, halves of surrogate pairs too.
std::u32string code_points(const py::str& text) {
  std::u32string found(static_cast<size_t>(PyUnicode_GET_LENGTH(text.ptr())), U'\0');
  auto* to = reinterpret_cast<Py_UCS4*>(found.data());
  if (!found.empty() && !PyUnicode_AsUCS4(text.ptr(), to, PyUnicode_GET_LENGTH(text.ptr()), 0)) {
    throw py::error_already_set();
  }
  return found;
}

std::vector<std::u32string> all_code_points(const py::list& texts, const char* name) {
  std::vector<std::u32string> found;
  found.reserve(texts.size());
  for (const auto text : texts) {
    MJ_CHECK(py::isinstance<py::str>(text), name, " must hold strings, got ",
             py::str(py::type::of(text)).cast<std::string>());
    found.push_back(code_points(py::reinterpret_borrow<py::str>(text)));
  }
  return found;
}

using Table = std::shared_ptr<mj::Characters>;

Table make_characters(const py::dict& more) {
  auto table = std::make_shared<mj::Characters>();
  for (Py_UCS4 c = 0; c < 0x110000; ++c) {
    const int kinds = (Py_UNICODE_ISSPACE(c) ? mj::kSpace : 0) |
                      (Py_UNICODE_ISALPHA(c) ? mj::kLetter : 0) |
                      (Py_UNICODE_ISUPPER(c) ? mj::kUpper : 0) |
                      (Py_UNICODE_ISDECIMAL(c) ? mj::kDigit : 0) |
                      (Py_UNICODE_ISLINEBREAK(c) ? mj::kBreak : 0);
    table->add(c, static_cast<uint16_t>(kinds));
  }
  const std::pair<const char*, mj::Kind> names[] = {
      {"mark", mj::kMark},         {"punctuation", mj::kPunctuation}, {"symbol", mj::kSymbol},
      {"terminal", mj::kTerminal}, {"edge", mj::kEdge},               {"lead", mj::kLead},
      {"unspaced", mj::kUnspaced}};
  for (const auto& [name, kind] : names) {
    MJ_CHECK(more.contains(name), "kinds must hold ", name);
    table->add(code_points(py::str(more[name])), kind);
  }
  return table;
}

std::unique_ptr<mj::Words> cut(const py::str& text, const Table& characters) {
  auto points = code_points(text);
  const py::gil_scoped_release released;
  return std::make_unique<mj::Words>(std::move(points), characters);
}

std::unique_ptr<mj::Words> given(const py::list& words, const Table& characters) {
  const auto points = all_code_points(words, "words");
  const py::gil_scoped_release released;
  return std::make_unique<mj::Words>(points, characters);
}

py::list listed(const mj::Words& words) {
  py::list found;
  for (size_t i = 0; i < words.size(); ++i) {
    const auto word = words[i];
    found.append(py::reinterpret_steal<py::str>(PyUnicode_FromKindAndData(
        PyUnicode_4BYTE_KIND, word.data(), static_cast<Py_ssize_t>(word.size()))));
  }
  return found;
}

py::tuple line_shapes(const py::str& text, const Table& characters) {
  const auto found = mj::line_shapes(code_points(text), *characters);
  return py::make_tuple(found.lines, found.bulleted, found.trailing);
}

py::tuple repeats(const py::str& text, size_t breaks) {
  const auto found = mj::repeats(code_points(text), breaks);
  return py::make_tuple(found.parts, found.repeated, found.characters);
}

py::tuple line_ends(const py::str& text, const Table& characters, int64_t brief) {
  const auto found = mj::line_ends(code_points(text), *characters, brief);
  return py::make_tuple(found.lines, found.ended, found.brief, found.repeated, found.newlines);
}

py::tuple kind_counts(const py::str& text, const Table& characters) {
  const auto found = mj::kind_counts(code_points(text), *characters);
  return py::make_tuple(found.spaces, found.letters, found.capitals, found.digits,
                        found.punctuation);
}

void bind_words(py::module_& m) {
  using mj::Words;
  const auto free = py::call_guard<py::gil_scoped_release>();
  py::class_<Words>(m, "Words", "The words of a text, and what filters count about them.")
      .def(py::init(&cut), py::arg("text"), py::arg("characters"))
      .def_static("given", &given, py::arg("words"), py::arg("characters"),
                  "Words that somebody else has cut.")
      .def("__len__", &Words::size)
      .def_property_readonly("solid", &Words::solid, "Words that are not of symbols alone.")
      .def_property_readonly("solid_characters", &Words::solid_characters, "Of the solid words.")
      .def_property_readonly("alphabetic", &Words::alphabetic, "Words with a letter.")
      .def("listed", &listed, "The words themselves.")
      .def("top_run", &Words::top_run, py::arg("n"), free,
           "Characters, spaces between words counted, that the most frequent run of n words takes\n"
           "up; of equally frequent ones the first; -1 when there are fewer than n words.")
      .def("repeated_runs", &Words::repeated_runs, py::arg("n"), free,
           "Characters in runs of n words that stood before; counted runs do not overlap.")
      .def("present", &Words::present, py::arg("phrases"), free,
           "How many of the phrases stand in the text at all.")
      .def("covered", &Words::covered, py::arg("phrases"), free,
           "Words that are part of a phrase.")
      .def("distinct_share", &Words::distinct_share, py::arg("window"), free,
           "Share of different words in a window of so many, the mean over all windows; of all words\n"
           "when there are fewer; 0 when there is none.")
      .def("sentences", &Words::sentences, free,
           "Sentences: each begins with the first word behind a terminal that is no punctuation.");
}

}  // namespace

PYBIND11_MODULE(_filters, m) {
  m.doc() = "What filters count about words and lines, in C++.  Wrong arguments raise ValueError.";
  py::class_<mj::Characters, Table>(m, "Characters", "What each character is.")
      .def(py::init(&make_characters), py::arg("kinds"),
           "kinds: the characters that are mark, punctuation, symbol, terminal, edge, lead and\n"
           "unspaced, by these names; the other kinds are as str's methods have them.");
  py::class_<mj::Phrases>(m, "Phrases", "Words and runs of words to be looked for.")
      .def(py::init([](const py::list& phrases, const Table& characters) {
             return mj::Phrases(all_code_points(phrases, "phrases"), *characters);
           }),
           py::arg("phrases"), py::arg("characters"));
  bind_words(m);
  m.def("line_shapes", &line_shapes, py::arg("text"), py::arg("characters"),
        "(lines, those that begin with a bullet, those that end in an ellipsis), lines as\n"
        "str.splitlines has them.");
  m.def("repeats", &repeats, py::arg("text"), py::kw_only(), py::arg("breaks"),
        "(parts between runs of at least `breaks` newlines, those that stood before, their\n"
        "characters).");
  m.def("line_ends", &line_ends, py::arg("text"), py::arg("characters"), py::kw_only(),
        py::arg("brief"),
        "(lines that are not blank, those that end in a terminal, those of at most `brief`\n"
        "characters, the characters of those that stood before, newlines).");
  m.def("kind_counts", &kind_counts, py::arg("text"), py::arg("characters"),
        "How many characters are (white space, letters with the marks on them, capitals, digits,\n"
        "punctuation).");
}
