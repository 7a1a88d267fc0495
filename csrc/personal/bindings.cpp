// The only file that sees pybind11: releases the GIL, calls the core.
#include <pybind11/pybind11.h>

#include <string_view>
#include <vector>

#include "personal/traces.h"

namespace py = pybind11;

namespace {

py::list find_traces(std::string_view text) {
  std::vector<mj::Trace> traces;
  {
    const py::gil_scoped_release released;
    traces = mj::find_traces(text);
  }
  py::list found;
  for (const auto& trace : traces)
    found.append(py::make_tuple(trace.kinds, trace.begin, trace.end));
  return found;
}

}  // namespace

PYBIND11_MODULE(_personal, m) {
  m.doc() = "A fast look for personal data, in C++.";
  m.attr("AT_SIGN") = mj::AT_SIGN;
  m.attr("KEY_BLOCK") = mj::KEY_BLOCK;
  m.attr("TOKEN") = mj::TOKEN;
  m.attr("DOTTED") = mj::DOTTED;
  m.attr("COLONS") = mj::COLONS;
  m.attr("LETTERED") = mj::LETTERED;
  m.attr("SEVEN") = mj::SEVEN;
  m.attr("NINE") = mj::NINE;
  m.attr("ELEVEN") = mj::ELEVEN;
  m.attr("THIRTEEN") = mj::THIRTEEN;
  m.attr("PHONE_WORD") = mj::PHONE_WORD;
  m.attr("ID_WORD") = mj::ID_WORD;
  m.attr("SECRET_WORD") = mj::SECRET_WORD;
  m.def("find_traces", &find_traces, py::arg("text"),
        "[(kinds, begin, end)]: where in the text's UTF-8 bytes personal data may stand, and what\n"
        "it may be: a sum of the constants here.");
}
