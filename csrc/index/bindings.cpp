// The only file that sees pybind11: checks arrays, releases the GIL, calls the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <mutex>
#include <span>
#include <string>

#include "arrays.h"
#include "check.h"
#include "index/blend.h"
#include "index/samples.h"
#include "index/shuffle.h"

namespace py = pybind11;

namespace {

using mj::view;
using mj::writable_view;

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

// A rule that borrows its arrays; `limits` is None or an array.
mj::BlendRule blend_rule(const py::array& weights, const py::object& limits) {
  mj::BlendRule rule{view<double>(weights, "weights"), {}};
  if (limits.is_none()) return rule;
  MJ_CHECK(py::isinstance<py::array>(limits), "limits must be an array or None");
  rule.limits = view<int64_t>(py::reinterpret_borrow<py::array>(limits), "limits");
  MJ_CHECK(!rule.limits.empty(), "limits must have ", rule.weights.size(), " sources, got 0");
  return rule;
}

mj::Machine machine_called(const std::string& name) {
  if (name.empty()) return mj::fastest_here();
  if (name == "avx512") return mj::Machine::avx512;
  if (name == "avx2") return mj::Machine::avx2;
  MJ_CHECK(name == "plain", "machine must be plain, avx2 or avx512, got ", name);
  return mj::Machine::plain;
}

py::tuple blend(const py::array& weights, int64_t size, const py::object& limits, int threads,
                const std::string& machine) {
  const auto rule = blend_rule(weights, limits);
  const auto code = machine_called(machine);
  MJ_CHECK(size >= 0, "size must not be negative, got ", size);
  py::array_t<int16_t> source(size);
  py::array_t<int64_t> number(size);
  const mj::BlendOutput output{fresh_view(source), fresh_view(number), {}};
  {
    const py::gil_scoped_release released;
    mj::blend(rule, size, threads, code, output);
  }
  return py::make_tuple(source, number);
}

py::array_t<int64_t> blend_counts(const py::array& weights, int64_t size, const py::object& limits,
                                  int threads, const std::string& machine) {
  const auto rule = blend_rule(weights, limits);
  const auto code = machine_called(machine);
  MJ_CHECK(size >= 0, "size must not be negative, got ", size);
  py::array_t<int64_t> counts({static_cast<py::ssize_t>(mj::blend_blocks(size) + 1),
                               static_cast<py::ssize_t>(rule.weights.size())});
  const mj::BlendOutput output{{}, {}, fresh_view(counts)};
  const py::gil_scoped_release released;
  mj::blend(rule, size, threads, code, output);
  return counts;
}

py::tuple blend_part(const py::array& weights, const py::array& taken, int64_t first, int64_t size,
                     const py::object& limits) {
  const auto rule = blend_rule(weights, limits);
  const auto counts = view<int64_t>(taken, "taken");
  MJ_CHECK(size >= 0, "size must not be negative, got ", size);
  py::array_t<int16_t> source(size);
  py::array_t<int64_t> number(size);
  const auto sources = fresh_view(source);
  const auto numbers = fresh_view(number);
  {
    const py::gil_scoped_release released;
    mj::blend_part(rule, mj::Counts(counts.begin(), counts.end()), first, sources, numbers);
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

  m.attr("BLEND_BLOCK") = mj::kBlendBlock;

  m.def("blend", &blend, py::arg("weights"), py::kw_only(), py::arg("size"),
        py::arg("limits") = py::none(), py::arg("threads") = 1, py::arg("machine") = "",
        "Source of each sample, always the one furthest behind its share.\n\n"
        "weights: float64 [sources], positive, adding up to 1.  size: samples.\n"
        "limits: int64 [sources], after how many samples each is spent; None for never.\n"
        "machine: plain, avx2 or avx512, for which the code is; '' for the fastest.  The result\n"
        "is the same, and ValueError where that code cannot run.\n"
        "Returns int16 [size], the source, and int64 [size], which of its samples.");

  m.def("blend_counts", &blend_counts, py::arg("weights"), py::kw_only(), py::arg("size"),
        py::arg("limits") = py::none(), py::arg("threads") = 1, py::arg("machine") = "",
        "How many samples of each source come before each BLEND_BLOCK samples of the same blend,\n"
        "and in all.\n\n"
        "Returns int64 [blocks + 1, sources].");

  m.def("blend_part", &blend_part, py::arg("weights"), py::arg("taken"), py::kw_only(),
        py::arg("first"), py::arg("size"), py::arg("limits") = py::none(),
        "Samples first, first + 1, ... of the same blend, after `taken` of each source.\n\n"
        "taken: int64 [sources], adding up to `first`, such as a row of blend_counts.\n"
        "Returns int16 [size] and int64 [size], as blend.");
}
