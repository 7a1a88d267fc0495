// The only file of the folder that sees pybind11: checks arrays, releases the GIL, calls the core.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arrays.h"
#include "check.h"
#include "lines/block.h"
#include "lines/names.h"
#include "lines/narrow.h"
#include "lines/scan.h"

namespace py = pybind11;

namespace {

mj::Width width_of(const std::string& name) {
  if (name.empty()) return mj::fastest_width();
  if (name == "plain") return mj::Width::plain;
  if (name == "avx2") return mj::Width::avx2;
  MJ_CHECK(name == "avx512", "width must be plain, avx2 or avx512, got ", name);
  return mj::Width::avx512;
}

py::tuple extract(const py::bytes& block, const std::string& key, const std::string& id_key,
                  const py::bytes& separator, int64_t limit, const std::string& width) {
  const auto scan = mj::scan_of(width_of(width));
  const std::string_view lines(block);
  const std::string_view between(separator);
  auto found = [&] {
    const py::gil_scoped_release released;
    return mj::extract(lines, {key, id_key}, between, limit, scan);
  }();
  return py::make_tuple(py::bytes(found.texts), mj::hand_over(std::move(found.text_sizes)),
                        py::bytes(found.ids), mj::hand_over(std::move(found.id_sizes)),
                        mj::hand_over(std::move(found.line_ends)),
                        mj::hand_over(std::move(found.sure)));
}

template <typename Token>
py::tuple narrow_as(std::span<const uint32_t> ids, uint32_t separator,
                    std::span<const int64_t> texts, const mj::Frame& frame, int64_t vocab) {
  auto found = [&] {
    const py::gil_scoped_release released;
    return mj::narrow<Token>(ids, separator, texts, frame, vocab);
  }();
  return py::make_tuple(mj::hand_over(std::move(found.tokens)),
                        mj::hand_over(std::move(found.lengths)),
                        mj::hand_over(std::move(found.sequences)));
}

py::tuple narrow(const py::array& ids, const py::array& texts, uint32_t separator,
                 std::vector<uint32_t> before, std::vector<uint32_t> after, int64_t eod,
                 int64_t vocab, bool wide) {
  const auto id_view = mj::view<uint32_t>(ids, "ids");
  const auto text_view = mj::view<int64_t>(texts, "texts");
  const int64_t most = wide ? int64_t{1} << 31 : int64_t{1} << 16;
  MJ_CHECK(vocab >= 1 && vocab <= most, "vocab must be from 1 to ", most, ", got ", vocab);
  MJ_CHECK(eod < vocab, "eod must be below ", vocab, ", got ", eod);
  for (const auto& added : {before, after}) {
    for (const uint32_t id : added) {
      MJ_CHECK(id < vocab, "before and after must be below ", vocab, ", got ", id);
    }
  }
  const mj::Frame frame{std::move(before), std::move(after), eod};
  return wide ? narrow_as<int32_t>(id_view, separator, text_view, frame, vocab)
              : narrow_as<uint16_t>(id_view, separator, text_view, frame, vocab);
}

py::tuple name_documents(const py::bytes& ids, const py::array& sizes, const py::array& lines,
                         const std::string& file) {
  const auto size_view = mj::view<int64_t>(sizes, "sizes");
  const auto line_view = mj::view<int64_t>(lines, "lines");
  const std::string_view letters(ids);
  auto named = [&] {
    const py::gil_scoped_release released;
    return mj::name_documents(letters, size_view, line_view, file);
  }();
  return py::make_tuple(py::bytes(named.letters), mj::hand_over(std::move(named.sizes)));
}

}  // namespace

PYBIND11_MODULE(_lines, m) {
  m.doc() = "Lines of JSON to tokens, in C++.  Wrong arguments raise ValueError.";

  m.def("extract", &extract, py::arg("block"), py::kw_only(), py::arg("key"), py::arg("id_key"),
        py::arg("separator"), py::arg("limit"), py::arg("width") = "",
        "Texts and ids of the lines that are surely objects with a text that is not empty.\n\n"
        "block: whole lines; the last may lack its end.  limit: bytes of the longest line.\n"
        "width: of a scan: plain, avx2 or avx512; by default the widest that this machine has.\n"
        "Returns texts (UTF-8, `separator` between), int64 [sure] their bytes, ids end to end,\n"
        "int64 [sure] their bytes (0: none), int64 [lines] the ends of all lines in the block,\n"
        "uint8 [lines] whether each is sure. The others must be judged elsewhere.");

  m.def("narrow", &narrow, py::arg("ids"), py::arg("texts"), py::kw_only(), py::arg("separator"),
        py::arg("before"), py::arg("after"), py::arg("eod"), py::arg("vocab"), py::arg("wide"),
        "Ids of texts that were encoded together, as the sequences of a token file.\n\n"
        "ids: uint32, of all texts, `separator` between them.\n"
        "texts: int64 [documents], how many texts each is made of, at least 1.\n"
        "before, after: ids put around each text.  eod: id that ends a document; -1: none.\n"
        "vocab: all ids are below it.  wide: tokens are int32, else uint16.\n"
        "Returns tokens, int32 [sequences] their lengths, and int32 [documents] how many\n"
        "sequences each has: texts without a token give none.");

  m.def("name_documents", &name_documents, py::arg("ids"), py::arg("sizes"), py::arg("lines"),
        py::kw_only(), py::arg("file"),
        "Names of documents: their ids, or FILE:LINE.\n\n"
        "ids: end to end, cut by sizes int64 [documents]; one of 0 bytes is named `file` and the\n"
        "next of lines, int64.  Returns the names end to end, and int64 [documents] their bytes.");
}
