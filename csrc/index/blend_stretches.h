// All of a blend in stretches that are worked on at the same time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "index/blend.h"
#include "index/blend_lanes.h"

namespace mj {

class Lanes;

// Stretches of whole blocks, kLanes of them a thread, one in each lane.
//
// Each lane guesses the state a while before its stretch and warms up into it.  `join` sees where
// that did not end in the true state and does those samples again, until both are the same: the
// result is always exact.
class Stretches {
 public:
  // size: 1 or more.
  Stretches(const BlendRule& rule, int64_t size, int threads, BlendOutput output);

  void run(int threads, AdvanceLanes advance);
  void join();

 private:
  int64_t first_of(int64_t stretch) const { return stretch * blocks_each_ * kBlendBlock; }
  std::span<int64_t> row(int64_t block) {
    return {&rows_[static_cast<size_t>(block) * rule_.weights.size()], rule_.weights.size()};
  }
  void run_alone();
  void run_lanes(int64_t first_stretch, AdvanceLanes advance);
  void note_rows(const Lanes& lanes, int64_t first_stretch, int64_t block);
  void write_block(Lanes& lanes, int64_t first_stretch, int64_t block);
  void write_choices(Counts& taken, int64_t first, const double* choices) const;
  void mend(size_t stretch);
  void walk_block(Counts& taken, int64_t block) const;
  void write_counts();

  // Call work(stretch, its lane) for those of the kLanes from first_stretch on that there are.
  template <typename Work>
  void each_lane(int64_t first_stretch, const Work& work) const {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const int64_t stretch = first_stretch + static_cast<int64_t>(lane);
      if (stretch < stretches_) work(stretch, lane);
    }
  }

  const BlendRule& rule_;
  int64_t size_;
  int64_t blocks_;
  BlendOutput output_;
  int64_t blocks_each_;
  int64_t stretches_;
  Counts rows_;               // [blocks][sources], taken before each block
  std::vector<Counts> ends_;  // [stretches]
};

}  // namespace mj
