// The only file that sees pybind11: checks arrays, releases the GIL, calls the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>

#include "arrays.h"
#include "pack/best_fit.h"
#include "pack/paced.h"

namespace py = pybind11;

namespace {

py::tuple best_fit(const py::array& lengths, int32_t capacity) {
  const auto length_view = mj::view<int32_t>(lengths, "lengths");
  auto packing = [&] {
    const py::gil_scoped_release released;
    return mj::best_fit(length_view, capacity);
  }();
  return py::make_tuple(mj::hand_over(std::move(packing.order)),
                        mj::hand_over(std::move(packing.first)));
}

void draw_paced(py::array values, const py::array& horizons, uint64_t seed) {
  const auto value_view = mj::writable_view<int64_t>(values, "values");
  const auto horizon_view = mj::view<int64_t>(horizons, "horizons");
  const py::gil_scoped_release released;
  mj::draw_paced(value_view, horizon_view, seed);
}

}  // namespace

PYBIND11_MODULE(_pack, m) {
  m.doc() = "Packing of sequences and paced orders, in C++.  Wrong arguments raise ValueError.";

  m.def("best_fit", &best_fit, py::arg("lengths"), py::kw_only(), py::arg("capacity"),
        "Best fit decreasing: the longest piece first, each into the fullest bin with room for it.\n\n"
        "lengths: int32 [pieces], each from 1 to capacity.\n"
        "Returns int32 [pieces], piece numbers bin after bin, rising in each, and int64 [bins + 1],\n"
        "where each bin starts among them.  Of equal pieces the lower number comes first; of\n"
        "equally full bins the one last filled is taken.");

  m.def("draw_paced", &draw_paced, py::arg("values"), py::arg("horizons"), py::kw_only(),
        py::arg("seed"),
        "Shuffle in place so that draw t comes from the first horizons[t] values, and each value\n"
        "is drawn once.\n\n"
        "values: int64 [n], from easy to hard.  horizons: int64 [n], never falling; one below\n"
        "t + 1 counts as t + 1.  seed: from 0 to 2^64 - 1.");
}
