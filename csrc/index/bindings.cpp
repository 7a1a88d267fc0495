// The only file that sees pybind11: checks arrays, releases the GIL, calls the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <utility>

#include "check.h"
#include "index/blend.h"
#include "index/samples.h"
#include "index/shuffle.h"

namespace py = pybind11;

namespace {

// Borrow a 1-D contiguous array of exactly T.  Never casts or copies: a wrong dtype is an error.
template <typename T>
std::span<const T> view(const py::array& array, const char* name) {
  const auto want = py::str(py::dtype::of<T>()).template cast<std::string>();
  const auto got = py::str(array.dtype()).cast<std::string>();
  MJ_CHECK(py::isinstance<py::array_t<T>>(array), name, " must be ", want, ", got ", got);
  MJ_CHECK(array.ndim() == 1, name, " must be 1-D, got ", array.ndim(), "-D");
  MJ_CHECK(array.flags() & py::array::c_style, name, " must be contiguous");
  MJ_CHECK(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_, name, " must be aligned");
  return {static_cast<const T*>(array.data()), static_cast<size_t>(array.size())};
}

// The same to write to.
template <typename T>
std::span<T> writable_view(py::array& array, const char* name) {
  const auto values = view<T>(array, name);
  MJ_CHECK(array.writeable(), name, " must be writable");
  return {static_cast<T*>(array.mutable_data()), values.size()};
}

template <typename T>
std::span<T> fresh_view(py::array_t<T>& array) {
  return {array.mutable_data(), static_cast<size_t>(array.size())};
}

class Shuffler {
 public:
  explicit Shuffler(int64_t seed) : random_(check(seed)) {}

  void shuffle(py::array values) {
    if (py::isinstance<py::array_t<uint32_t>>(values)) return shuffle_as<uint32_t>(values);
    if (py::isinstance<py::array_t<int64_t>>(values)) return shuffle_as<int64_t>(values);
    MJ_CHECK(py::isinstance<py::array_t<int32_t>>(values),
             "values must be int32, uint32 or int64, got ",
             py::str(values.dtype()).cast<std::string>());
    shuffle_as<int32_t>(values);
  }

 private:
  static uint32_t check(int64_t seed) {
    MJ_CHECK(seed >= 0 && seed <= 0xffffffffll, "seed must be from 0 to 4294967295, got ", seed);
    return static_cast<uint32_t>(seed);
  }

  template <typename T>
  void shuffle_as(py::array& values) {
    const auto span = writable_view<T>(values, "values");
    const py::gil_scoped_release released;
    const std::lock_guard<std::mutex> alone(mutex_);
    mj::shuffle(random_, span);
  }

  mj::Mersenne random_;
  std::mutex mutex_;
};

template <typename T>
py::array starts_as(const mj::TokenStream& stream, int64_t seq_len) {
  py::array_t<T> starts({static_cast<py::ssize_t>(stream.samples(seq_len) + 1), py::ssize_t{2}});
  const auto span = fresh_view(starts);
  const py::gil_scoped_release released;
  stream.write_starts(seq_len, span);
  return starts;
}

py::array sample_starts(const py::array& lengths, const py::array& order, int64_t seq_len,
                        bool wide, int threads) {
  const auto length_view = view<int32_t>(lengths, "lengths");
  const auto order_view = view<int32_t>(order, "order");
  const auto stream = [&] {
    const py::gil_scoped_release released;
    return mj::TokenStream(length_view, order_view, threads);
  }();
  return wide ? starts_as<int64_t>(stream, seq_len) : starts_as<int32_t>(stream, seq_len);
}

std::pair<py::array_t<int16_t>, py::array_t<int64_t>> blank_blend(int64_t size) {
  MJ_CHECK(size >= 0, "size must not be negative, got ", size);
  return {py::array_t<int16_t>(size), py::array_t<int64_t>(size)};
}

py::tuple blend(const py::array& weights, int64_t size, int threads) {
  const auto weight_view = view<double>(weights, "weights");
  auto [source, number] = blank_blend(size);
  const auto sources = fresh_view(source);
  const auto numbers = fresh_view(number);
  {
    const py::gil_scoped_release released;
    mj::blend(weight_view, sources, numbers, threads);
  }
  return py::make_tuple(source, number);
}

py::tuple blend_all(const py::array& sizes) {
  const auto size_view = view<int64_t>(sizes, "sizes");
  int64_t sum = 0;
  for (const int64_t size : size_view) {
    if (size > 0) MJ_CHECK(!__builtin_add_overflow(sum, size, &sum), "sizes add up to over 2^63");
  }
  auto [source, number] = blank_blend(sum);
  const auto sources = fresh_view(source);
  const auto numbers = fresh_view(number);
  {
    const py::gil_scoped_release released;
    mj::blend_all(size_view, sources, numbers);
  }
  return py::make_tuple(source, number);
}

}  // namespace

PYBIND11_MODULE(_data, m) {
  m.doc() = "Index building for token files, in C++.  Wrong arguments raise ValueError.";

  py::class_<Shuffler>(m, "Shuffler",
                       "Shuffles as numpy.random.RandomState(seed) does, bit for bit.\n\n"
                       "seed: from 0 to 2^32 - 1.")
      .def(py::init<int64_t>(), py::arg("seed"))
      .def("shuffle", &Shuffler::shuffle, py::arg("values"),
           "Shuffle in place, going on with the same random numbers at each call.\n\n"
           "values: [items], int32, uint32 or int64; contiguous, at most 2^32 items.");

  m.def("sample_starts", &sample_starts, py::arg("lengths"), py::arg("order"), py::kw_only(),
        py::arg("seq_len"), py::arg("wide") = false, py::arg("threads") = 1,
        "(place in order, offset in that document) where each sample starts.\n\n"
        "lengths: int32 [documents], tokens.  order: int32 [visits], document numbers.\n"
        "seq_len: tokens from one start to the next; a sample reads one more, its last target.\n"
        "wide: int64 instead of int32, for more than 2^31 - 1 visits.\n"
        "Returns [samples + 1, 2]; the last row is where the last sample ends.");

  m.def("blend", &blend, py::arg("weights"), py::kw_only(), py::arg("size"),
        py::arg("threads") = 1,
        "Source of each sample, always the one furthest behind its share.\n\n"
        "weights: float64 [sources], positive, adding up to 1.  size: samples.\n"
        "Returns int16 [size], the source, and int64 [size], which of its samples.");

  m.def("blend_all", &blend_all, py::arg("sizes"),
        "The same, taking exactly sizes[i] samples of source i, all of them in proportion.\n\n"
        "sizes: int64 [sources], positive.\n"
        "Returns int16 [sum of sizes] and int64 [sum of sizes].");
}
