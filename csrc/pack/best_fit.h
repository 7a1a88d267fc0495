// Best fit decreasing: pieces into as few bins as a greedy rule finds.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mj {

struct Packing {
  std::vector<int32_t> order;  // [pieces], piece numbers, bin after bin; in a bin they rise
  std::vector<int64_t> first;  // [bins + 1], where in `order` each bin starts, and the end
};

// The longest piece first, each into the fullest bin that still has room for it, or a new one.
// Of equal pieces the lower number comes first; of equally full bins the one last filled is taken.
//
// lengths: [pieces], each from 1 to capacity.  O(pieces x log_64 capacity) time.
// Source: Ding et al. 2024, Fewer Truncations Improve Language Modeling, section 2.2, algorithm 1,
// arXiv:2404.10830 (a set of 64-ary words here in place of its segment tree).
Packing best_fit(std::span<const int32_t> lengths, int32_t capacity);

}  // namespace mj
