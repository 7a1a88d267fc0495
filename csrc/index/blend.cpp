#include "index/blend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "check.h"
#include "threads.h"

namespace mj {
namespace {

using Counts = std::vector<int64_t>;

constexpr int64_t kWarmUp = 1 << 17;  // samples after which a guess has almost always merged

void check_sources(size_t sources, const char* name) {
  MJ_CHECK(sources >= 1 && sources < 32767, name, " must have from 1 to 32766 sources, got ",
           sources);
}

// Where samples go; nowhere while warming up.
struct Output {
  int16_t* source = nullptr;
  int64_t* number = nullptr;
};

// Take samples [first, last) one by one; `taken` is the whole state.
void take(std::span<const double> weights, Counts& taken, int64_t first, int64_t last,
          Output output) {
  const size_t sources = weights.size();
  std::vector<double> given(taken.begin(), taken.end());
  for (int64_t sample = first; sample < last; ++sample) {
    const double position = std::max(static_cast<double>(sample), 1.0);
    size_t chosen = 0;
    double worst = weights[0] * position - given[0];
    for (size_t i = 1; i < sources; ++i) {
      const double behind = weights[i] * position - given[i];
      chosen = behind > worst ? i : chosen;
      worst = behind > worst ? behind : worst;
    }
    if (output.source != nullptr) {
      output.source[sample] = static_cast<int16_t>(chosen);
      output.number[sample] = taken[chosen];
    }
    taken[chosen] += 1;
    given[chosen] += 1.0;
  }
}

// What was probably taken before `sample`: each share rounded down, the rest to the largest
// remainders.
Counts guess(std::span<const double> weights, int64_t sample) {
  Counts taken(weights.size());
  std::vector<std::pair<double, size_t>> rests;
  int64_t sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double share = weights[i] * static_cast<double>(sample);
    taken[i] = static_cast<int64_t>(share);
    sum += taken[i];
    rests.emplace_back(share - std::floor(share), i);
  }
  std::sort(rests.rbegin(), rests.rend());
  for (size_t i = 0; sum < sample; i = (i + 1) % rests.size(), ++sum) taken[rests[i].second] += 1;
  return taken;
}

}  // namespace

// Each thread guesses the state a while before its run and warms up into it.  Where the guess did
// not end in the true state, the run is done again from the true one: the result is always exact.
void blend(std::span<const double> weights, std::span<int16_t> source, std::span<int64_t> number,
           int threads) {
  check_sources(weights.size(), "weights");
  MJ_CHECK(threads >= 1, "threads must be at least 1, got ", threads);
  MJ_CHECK(source.size() == number.size(), "source has ", source.size(), " samples, number has ",
           number.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    MJ_CHECK(weights[i] > 0 && std::isfinite(weights[i]), "weights[", i, "] must be positive, got ",
             weights[i]);
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  MJ_CHECK(std::abs(sum - 1) < 1e-6, "weights must add up to 1, got ", sum);
  const auto samples = static_cast<int64_t>(source.size());
  const auto useful = static_cast<int>(std::min<int64_t>(threads, 1 + samples / (4 * kWarmUp)));
  const Output output{source.data(), number.data()};
  std::vector<Counts> begins(static_cast<size_t>(useful)), ends(static_cast<size_t>(useful));
  run_threads(useful, samples, [&](int thread, int64_t first, int64_t last) {
    const int64_t early = thread == 0 ? 0 : std::max<int64_t>(0, first - kWarmUp);
    Counts taken = guess(weights, early);
    take(weights, taken, early, first, {});
    begins[static_cast<size_t>(thread)] = taken;
    take(weights, taken, first, last, output);
    ends[static_cast<size_t>(thread)] = std::move(taken);
  });
  for (size_t thread = 1; thread < ends.size(); ++thread) {
    if (begins[thread] == ends[thread - 1]) continue;
    const auto place = static_cast<int64_t>(thread);
    ends[thread] = ends[thread - 1];
    take(weights, ends[thread], samples * place / useful, samples * (place + 1) / useful, output);
  }
}

void blend_all(std::span<const int64_t> sizes, std::span<int16_t> source,
               std::span<int64_t> number) {
  check_sources(sizes.size(), "sizes");
  for (size_t i = 0; i < sizes.size(); ++i) {
    MJ_CHECK(sizes[i] > 0, "sizes[", i, "] must be positive, got ", sizes[i]);
  }
  const int64_t sum = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  MJ_CHECK(source.size() == static_cast<size_t>(sum) && number.size() == source.size(),
           "source has ", source.size(), " and number ", number.size(), " samples, sizes add up to ",
           sum);
  Counts taken(sizes.size(), 0);
  std::vector<size_t> unspent(sizes.size());
  std::iota(unspent.begin(), unspent.end(), size_t{0});
  for (size_t sample = 0; !unspent.empty(); ++sample) {
    const double position = std::max(static_cast<double>(sample), 1.0);
    size_t chosen = 0;
    double worst = std::numeric_limits<double>::lowest();
    for (size_t place = 0; place < unspent.size(); ++place) {
      const size_t i = unspent[place];
      const double weight = static_cast<double>(sizes[i]) / static_cast<double>(sum);
      const double behind = weight * position - static_cast<double>(taken[i]);
      if (behind > worst) {
        chosen = place;
        worst = behind;
      }
    }
    const size_t i = unspent[chosen];
    source[sample] = static_cast<int16_t>(i);
    number[sample] = taken[i]++;
    if (taken[i] == sizes[i]) unspent.erase(unspent.begin() + static_cast<ptrdiff_t>(chosen));
  }
}

}  // namespace mj
