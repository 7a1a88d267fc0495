// Shuffles, samples and blends, beside slow ones.
#include <numeric>
#include <random>
#include <utility>

#include "exact.h"
#include "index/blend.h"
#include "index/samples.h"
#include "index/shuffle.h"

namespace {

void shuffle_slowly(std::vector<int64_t>& values) {
  std::mt19937 draw(17);
  for (size_t last = values.size(); last-- > 1;) {
    uint32_t mask = 0, place = 0;
    while (mask < last) mask = mask << 1 | 1;
    while ((place = static_cast<uint32_t>(draw()) & mask) > last) {
    }
    std::swap(values[last], values[place]);
  }
}

void compare_shuffles() {
  for (const size_t count : {0, 1, 2, 3, 623, 624, 625, 2003}) {
    std::vector<int64_t> values(count);
    std::iota(values.begin(), values.end(), 0);
    auto wanted = values;
    mj::Mersenne random(17);
    mj::shuffle<int64_t>(random, values);
    shuffle_slowly(wanted);
    exact::check(values == wanted, "a shuffle differs");
  }
}

void compare_samples(int64_t seq_len) {
  const std::vector<int32_t> lengths{3, 0, 1, 7, 2}, order{4, 1, 0, 3, 3, 2, 1, 0};
  std::vector<std::pair<int32_t, int32_t>> places;  // of each token
  for (int32_t visit = 0; visit < static_cast<int32_t>(order.size()); ++visit) {
    const int32_t length = lengths[static_cast<size_t>(order[static_cast<size_t>(visit)])];
    for (int32_t i = 0; i < length; ++i) places.emplace_back(visit, i);
  }
  for (const int threads : {1, 3}) {
    const mj::TokenStream stream(lengths, order, threads);
    exact::check(stream.tokens() == static_cast<int64_t>(places.size()), "tokens differ");
    const int64_t samples = stream.samples(seq_len);
    exact::check(samples == (stream.tokens() - 1) / seq_len, "samples differ");
    std::vector<int32_t> starts(static_cast<size_t>(2 * (samples + 1)));
    stream.write_starts<int32_t>(seq_len, starts);
    for (size_t i = 0; i < static_cast<size_t>(samples); ++i) {
      const std::pair found{starts[2 * i], starts[2 * i + 1]};
      exact::check(found == places[i * static_cast<size_t>(seq_len)], "a start differs");
    }
  }
}

void compare_blends(int64_t size) {
  const std::vector<double> weights{0.5, 0.25, 0.125, 0.0625, 0.0625};
  std::vector<int16_t> wanted;
  std::vector<int64_t> taken(weights.size());
  for (int64_t sample = 0; sample < size; ++sample) {
    size_t best = 0;
    const auto behind = [&](size_t i) {
      const auto given = static_cast<double>(sample > 1 ? sample : 1);
      return weights[i] * given - static_cast<double>(taken[i]);
    };
    for (size_t i = 1; i < weights.size(); ++i) best = behind(i) > behind(best) ? i : best;
    ++taken[best];
    wanted.push_back(static_cast<int16_t>(best));
  }
  for (const auto machine : {mj::Machine::plain, mj::Machine::avx2, mj::Machine::avx512}) {
    if (!mj::runs_here(machine)) continue;
    for (const int threads : {1, 3}) {
      std::vector<int16_t> source(static_cast<size_t>(size));
      std::vector<int64_t> number(source.size());
      mj::blend({weights, {}}, size, threads, machine, {source, number, {}});
      exact::check(source == wanted, "a blend differs");
    }
  }
}

}  // namespace

int main() {
  compare_shuffles();
  for (const int64_t seq_len : {1, 2, 5, 40}) compare_samples(seq_len);
  for (const int64_t size : {0, 1, 2, 31, 1009, 40009}) compare_blends(size);
  return exact::faults == 0 ? 0 : 1;
}
