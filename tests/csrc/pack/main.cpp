// Packing and curricula, beside slow ones.
#include <algorithm>
#include <numeric>
#include <random>

#include "exact.h"
#include "pack/best_fit.h"
#include "pack/paced.h"

namespace {

using Bins = std::vector<std::vector<int32_t>>;

// The same rule, each bin looked at for each piece.
Bins packed_slowly(const std::vector<int32_t>& lengths, int32_t capacity) {
  std::vector<int32_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&](int32_t piece) { return lengths[static_cast<size_t>(piece)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return length(a) > length(b); });
  Bins bins;
  std::vector<int32_t> room, filled;
  for (int32_t time = 0; const int32_t piece : order) {
    size_t best = bins.size();
    for (size_t bin = 0; bin < bins.size(); ++bin) {
      if (room[bin] < length(piece)) continue;
      const bool fuller = best == bins.size() || room[bin] < room[best];
      if (fuller || (room[bin] == room[best] && filled[bin] > filled[best])) best = bin;
    }
    if (best == bins.size()) {
      bins.emplace_back();
      room.push_back(capacity);
      filled.push_back(0);
    }
    bins[best].push_back(piece);
    room[best] -= length(piece);
    filled[best] = ++time;
  }
  for (auto& bin : bins) std::sort(bin.begin(), bin.end());
  std::sort(bins.begin(), bins.end());
  return bins;
}

Bins packed(const std::vector<int32_t>& lengths, int32_t capacity) {
  const auto packing = mj::best_fit(lengths, capacity);
  Bins bins;
  for (size_t bin = 0; bin + 1 < packing.first.size(); ++bin) {
    bins.emplace_back(packing.order.begin() + packing.first[bin],
                      packing.order.begin() + packing.first[bin + 1]);
  }
  std::sort(bins.begin(), bins.end());
  return bins;
}

}  // namespace

int main() {
  std::minstd_rand draw(1);
  for (const int32_t capacity : {1, 2, 63, 64, 65, 4097}) {
    for (const size_t pieces : {0, 1, 2, 64, 257}) {
      std::vector<int32_t> lengths(pieces);
      for (int32_t& length : lengths) length = 1 + static_cast<int32_t>(draw()) % capacity;
      const Bins wanted = packed_slowly(lengths, capacity);
      exact::check(packed(lengths, capacity) == wanted, "best fit differs");
    }
  }
  for (const size_t count : {0, 1, 2, 67}) {
    std::vector<int64_t> values(count), horizons(count);
    std::iota(values.begin(), values.end(), 0);
    for (size_t i = 0; i < count; ++i) horizons[i] = static_cast<int64_t>(std::min(count, i + 5));
    mj::draw_paced(values, horizons, 3);
    for (size_t i = 0; i < count; ++i) exact::check(values[i] < horizons[i], "drawn too early");
    std::sort(values.begin(), values.end());
    for (size_t i = 0; i < count; ++i) {
      exact::check(values[i] == static_cast<int64_t>(i), "not drawn once");
    }
  }
  return exact::faults == 0 ? 0 : 1;
}
