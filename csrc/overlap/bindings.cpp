// megatron_jobs._overlap: words and phrases of texts.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string_view>
#include <tuple>

#include "overlap/phrases.h"
#include "overlap/words.h"

namespace py = pybind11;

PYBIND11_MODULE(_overlap, module) {
  module.def(
      "words",
      [](std::string_view text) {
        std::vector<mj::Word> words;
        {
          const py::gil_scoped_release unlocked;
          mj::cut_words(text, words);
        }
        std::vector<std::pair<std::size_t, std::size_t>> spans;
        spans.reserve(words.size());
        for (const auto& word : words) spans.emplace_back(word.start, word.end);
        return spans;
      },
      py::arg("text"));
  py::class_<mj::Phrases>(module, "Phrases", py::module_local())
      .def(py::init<std::int64_t, std::int64_t>(), py::kw_only(), py::arg("size"), py::arg("least"))
      .def("add", &mj::Phrases::add, py::arg("text"))
      .def(
          "find",
          [](const mj::Phrases& phrases, std::string_view text) {
            std::vector<mj::Hit> hits;
            {
              const py::gil_scoped_release unlocked;
              hits = phrases.find(text);
            }
            std::vector<std::tuple<std::int64_t, std::int64_t, std::int64_t>> found;
            found.reserve(hits.size());
            for (const auto& hit : hits) found.emplace_back(hit.word, hit.words, hit.phrase);
            return found;
          },
          py::arg("text"))
      .def("words_of", &mj::Phrases::words_of, py::arg("phrase"))
      .def("__len__", &mj::Phrases::count);
}
