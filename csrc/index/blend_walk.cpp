#include "index/blend_walk.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace mj {

double given_as(const BlendRule& rule, size_t source, int64_t taken) {
  const bool spent = !rule.limits.empty() && taken >= rule.limits[source];
  return spent ? kInfinity : static_cast<double>(taken);
}

void walk(const BlendRule& rule, Counts& taken, int64_t first, int64_t last, int16_t* source,
          int64_t* number) {
  const size_t sources = rule.weights.size();
  std::vector<double> given(sources);
  for (size_t i = 0; i < sources; ++i) given[i] = given_as(rule, i, taken[i]);
  for (int64_t sample = first; sample < last; ++sample) {
    const double position = std::max(static_cast<double>(sample), 1.0);
    size_t chosen = 0;
    double most = -kInfinity;
    for (size_t i = 0; i < sources; ++i) {
      const double behind = rule.weights[i] * position - given[i];
      chosen = behind > most ? i : chosen;
      most = behind > most ? behind : most;
    }
    if (source != nullptr) {
      source[sample - first] = static_cast<int16_t>(chosen);
      number[sample - first] = taken[chosen];
    }
    taken[chosen] += 1;
    given[chosen] = given_as(rule, chosen, taken[chosen]);
  }
}

Counts guess(const BlendRule& rule, int64_t sample) {
  Counts taken(rule.weights.size());
  std::vector<std::pair<double, size_t>> rests;
  int64_t sum = 0;
  for (size_t i = 0; i < taken.size(); ++i) {
    const double share = rule.weights[i] * static_cast<double>(sample);
    taken[i] = static_cast<int64_t>(share);
    sum += taken[i];
    rests.emplace_back(share - std::floor(share), i);
  }
  std::sort(rests.rbegin(), rests.rend());
  for (size_t i = 0; sum < sample; i = (i + 1) % rests.size(), ++sum) taken[rests[i].second] += 1;
  return taken;
}

}  // namespace mj
