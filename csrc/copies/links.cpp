#include "copies/links.h"

#include <algorithm>
#include <numeric>

#include "check.h"

namespace mj {

Links::Links(int64_t first, int64_t last) : first_(first) {
  MJ_CHECK(first >= 0 && first <= last, "a share must be [first, last) from 0, got [", first, ", ",
           last, ")");
  parents_.resize(static_cast<size_t>(last - first));
  std::iota(parents_.begin(), parents_.end(), first);
}

Links::Links(int64_t first, std::vector<int64_t> parents)
    : first_(first), parents_(std::move(parents)) {
  for (size_t i = 0; i < parents_.size(); ++i) {
    const int64_t vertex = first + static_cast<int64_t>(i);
    MJ_CHECK(parents_[i] >= 0 && parents_[i] <= vertex, "parents: ", parents_[i], " of ", vertex,
             " must be from 0 to itself");
  }
}

int64_t Links::top(int64_t vertex) {
  for (;;) {
    int64_t& up = parent(vertex);
    if (up == vertex || up < first_) return vertex;
    const int64_t further = parent(up);
    if (further >= first_) up = further;  // halves the path; never past the top of the tree
    vertex = up;
  }
}

// Join two trees; true when `left` then holds an edge between vertices below the share.
bool Links::join(int64_t high, int64_t low, Edge& left) {
  int64_t a = top(high);
  int64_t b = low >= first_ ? top(low) : low;
  if (a == b) return false;
  if (a < b) std::swap(a, b);
  const int64_t outside = parent(a);  // a itself, or below the share
  parent(a) = b;
  if (outside == a || outside == b) return false;
  if (b < first_) {  // two parents outside: keep the lower
    parent(a) = std::min(b, outside);
    left = {std::max(b, outside), std::min(b, outside)};
    return true;
  }
  const int64_t others = parent(b);
  parent(b) = others == b ? outside : std::min(others, outside);
  if (others == b || others == outside) return false;
  left = {std::max(others, outside), std::min(others, outside)};
  return true;
}

std::vector<Edge> Links::add(std::span<const Edge> edges) {
  std::vector<Edge> handed_on;
  for (const auto& [high, low] : edges) {
    MJ_CHECK(high >= first_ && high < last(), "edges: ", high, " is not in the share [", first_,
             ", ", last(), ")");
    MJ_CHECK(low >= 0 && low < high, "edges: (", high, ", ", low, ") must fall, from 0");
    Edge left;
    if (!join(high, low, left)) continue;
    const bool again = !handed_on.empty() && handed_on.back().high == left.high &&
                       handed_on.back().low == left.low;
    if (!again) handed_on.push_back(left);
  }
  return handed_on;
}

}  // namespace mj
