#include "index/blend_stretches.h"

#include <algorithm>
#include <utility>

#include "index/blend_walk.h"
#include "scratch.h"
#include "threads.h"

namespace mj {
namespace {

constexpr int64_t kWarmUp = 1 << 16;  // samples after which a guess has almost always merged
constexpr int64_t kLeastBlocks = 4;   // of a stretch: shorter ones would mostly be warm-up
constexpr int64_t kChunk = 128;       // steps whose choices fit the first-level cache

int64_t quotient_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

}  // namespace

// A LaneState and its memory, which Scratch aligns.
class Lanes {
 public:
  Lanes(const BlendRule& rule, AdvanceLanes advance)
      : rule_(rule),
        advance_(advance),
        weights_(rule.weights.begin(), rule.weights.end()),
        limits_(rule.limits.begin(), rule.limits.end()),
        given_((rule.weights.size() + 1) * kLanes),
        rest_((2 + kChunk) * kLanes) {
    if (weights_.size() % 2) weights_.push_back(0);
    if (!limits_.empty()) limits_.resize(weights_.size(), kInfinity);
    const double* const limits = limits_.empty() ? nullptr : limits_.data();
    state_ = {weights_.size(), weights_.data(), limits, &given_[0], &rest_[0], &rest_[kLanes]};
    std::fill_n(&given_[(weights_.size() - 1) * kLanes], kLanes, kInfinity);
  }

  void set(size_t lane, const Counts& taken, int64_t sample) {
    for (size_t i = 0; i < taken.size(); ++i) given(i, lane) = given_as(rule_, i, taken[i]);
    state_.sample[lane] = static_cast<double>(sample);
    state_.chosen[lane] = kNone;
  }

  void advance(int64_t steps) {
    advance_(state_, steps, nullptr);
    settle();
  }

  // The choices of kChunk steps, [kChunk][kLanes]; until the next call.
  const double* choices() {
    double* const found = &rest_[2 * kLanes];
    advance_(state_, kChunk, found);
    return found;
  }

  // Count the last sample of each lane, which the step leaves outstanding.
  void settle() {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const auto source = static_cast<size_t>(state_.chosen[lane]);
      double& now = given(source, lane);
      now += 1;
      if (!limits_.empty() && now == limits_[source]) now = kInfinity;
      state_.chosen[lane] = kNone;
    }
  }

  Counts taken(size_t lane) const {
    Counts found(rule_.weights.size());
    for (size_t i = 0; i < found.size(); ++i) {
      const double now = state_.given[i * kLanes + lane];
      found[i] = now == kInfinity ? rule_.limits[i] : static_cast<int64_t>(now);
    }
    return found;
  }

 private:
  double& given(size_t source, size_t lane) { return state_.given[source * kLanes + lane]; }

  const BlendRule& rule_;
  AdvanceLanes advance_;
  std::vector<double> weights_, limits_;
  Scratch<double> given_;  // [sources, up to an even number][kLanes]
  Scratch<double> rest_;   // samples and choices of the state, choices of a chunk
  LaneState state_;
};

Stretches::Stretches(const BlendRule& rule, int64_t size, int threads, BlendOutput output)
    : rule_(rule), size_(size), blocks_(blend_blocks(size)), output_(output) {
  const int64_t most = static_cast<int64_t>(threads) * static_cast<int64_t>(kLanes);
  blocks_each_ = std::max(kLeastBlocks, quotient_up(blocks_, most));
  stretches_ = quotient_up(blocks_, blocks_each_);
  rows_.resize(static_cast<size_t>(blocks_) * rule.weights.size());
  ends_.resize(static_cast<size_t>(stretches_));
}

void Stretches::run(int threads, AdvanceLanes advance) {
  if (stretches_ == 1) return run_alone();
  constexpr auto lanes = static_cast<int64_t>(kLanes);
  run_threads(threads, quotient_up(stretches_, lanes), [&](int, int64_t first, int64_t last) {
    for (int64_t group = first; group < last; ++group) run_lanes(group * lanes, advance);
  });
}

void Stretches::join() {
  for (size_t stretch = 1; stretch < ends_.size(); ++stretch) mend(stretch);
  if (!output_.counts.empty()) write_counts();
}

// What is too short for a second stretch.
void Stretches::run_alone() {
  Counts taken(rule_.weights.size());
  for (int64_t block = 0; block < blocks_; ++block) {
    std::ranges::copy(taken, row(block).begin());
    walk_block(taken, block);
  }
}

void Stretches::run_lanes(int64_t first_stretch, AdvanceLanes advance) {
  Lanes lanes(rule_, advance);
  const int64_t warm_up = std::min(kWarmUp, blocks_each_ * kBlendBlock);
  for (size_t lane = 0; lane < kLanes; ++lane) {
    const int64_t first = first_of(first_stretch + static_cast<int64_t>(lane));
    const int64_t early = std::max<int64_t>(0, first - warm_up);
    lanes.set(lane, guess(rule_, early), early);
  }
  lanes.advance(warm_up);
  if (first_stretch == 0) lanes.set(0, Counts(rule_.weights.size()), 0);
  for (int64_t block = 0; block < blocks_each_; ++block) {
    note_rows(lanes, first_stretch, block);
    if (output_.source.empty()) {
      lanes.advance(kBlendBlock);
    } else {
      write_block(lanes, first_stretch, block);
    }
  }
  each_lane(first_stretch, [&](int64_t stretch, size_t lane) {
    ends_[static_cast<size_t>(stretch)] = lanes.taken(lane);
  });
}

void Stretches::note_rows(const Lanes& lanes, int64_t first_stretch, int64_t block) {
  each_lane(first_stretch, [&](int64_t stretch, size_t lane) {
    const int64_t number = stretch * blocks_each_ + block;
    if (number < blocks_) std::ranges::copy(lanes.taken(lane), row(number).begin());
  });
}

void Stretches::write_block(Lanes& lanes, int64_t first_stretch, int64_t block) {
  std::vector<Counts> taken;
  for (size_t lane = 0; lane < kLanes; ++lane) taken.push_back(lanes.taken(lane));
  for (int64_t step = 0; step < kBlendBlock; step += kChunk) {
    const double* choices = lanes.choices();
    each_lane(first_stretch, [&](int64_t stretch, size_t lane) {
      const int64_t first = first_of(stretch) + block * kBlendBlock + step;
      write_choices(taken[lane], first, choices + lane);
    });
  }
  lanes.settle();
}

void Stretches::write_choices(Counts& taken, int64_t first, const double* choices) const {
  const int64_t last = std::min(size_, first + kChunk);
  int64_t* const counts = taken.data();
  for (int64_t sample = first; sample < last; ++sample, choices += kLanes) {
    const auto source = static_cast<int32_t>(*choices);
    output_.source[static_cast<size_t>(sample)] = static_cast<int16_t>(source);
    output_.number[static_cast<size_t>(sample)] = counts[source]++;
  }
}

// Do the samples at the start of a stretch again that did not come from the true state.
void Stretches::mend(size_t stretch) {
  Counts truth = ends_[stretch - 1];
  const int64_t first = static_cast<int64_t>(stretch) * blocks_each_;
  const int64_t last = std::min(first + blocks_each_, blocks_);
  for (int64_t block = first; block < last; ++block) {
    if (std::ranges::equal(row(block), truth)) return;
    std::ranges::copy(truth, row(block).begin());
    walk_block(truth, block);
  }
  ends_[stretch] = std::move(truth);
}

void Stretches::walk_block(Counts& taken, int64_t block) const {
  const int64_t first = block * kBlendBlock;
  const int64_t last = std::min(first + kBlendBlock, size_);
  const auto place = static_cast<size_t>(first);
  const bool writes = !output_.source.empty();
  walk(rule_, taken, first, last, writes ? &output_.source[place] : nullptr,
       writes ? &output_.number[place] : nullptr);
}

void Stretches::write_counts() {
  const int64_t last = blocks_ - 1;
  Counts taken(row(last).begin(), row(last).end());
  walk(rule_, taken, last * kBlendBlock, size_, nullptr, nullptr);
  std::ranges::copy(rows_, output_.counts.begin());
  std::ranges::copy(taken, output_.counts.begin() + static_cast<ptrdiff_t>(rows_.size()));
}

}  // namespace mj
