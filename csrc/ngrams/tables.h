// Open-addressed tables from 64-bit hashes, as flat arrays that can be mapped from a file.
//
// A table has a power of two of slots and at least a third of them free; a slot is two 64-bit
// numbers, the key (0: free) and what belongs to it.  Filled in one order, it has the same bytes.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "check.h"

namespace mj {

struct Slot {
  uint64_t key;
  uint64_t value;
};

// What belongs to an n-gram: base 10 logarithms of its probability and of its back-off weight.
struct Weight {
  float log_p;
  float back_off;
};

inline uint64_t slots_for(uint64_t items) {
  return std::bit_ceil(items + items / 2 + 2);
}

// The hash of an n-gram from that of all but its first word: words are added from last to first.
inline uint64_t extend(uint64_t hash, uint32_t word) {
  const uint64_t mixed = (hash ^ (word + 1ull)) * 0x9fb21c651e98df25ull;
  const uint64_t found = (mixed ^ (mixed >> 32)) * 0xd6e8feb86659fd93ull;
  return (found ^ (found >> 29)) | (found == 0);
}

class Table {
 public:
  explicit Table(std::span<const uint64_t> flat) : flat_(flat) {
    MJ_CHECK(std::has_single_bit(flat.size()) && flat.size() >= 4,
             "a table must have a power of two of slots of two numbers, got ", flat.size(),
             " numbers");
    mask_ = flat.size() / 2 - 1;
  }

  // The slot's value, or null.
  const uint64_t* find(uint64_t key) const {
    for (uint64_t at = key & mask_, tried = 0; tried <= mask_; at = (at + 1) & mask_, ++tried) {
      if (flat_[2 * at] == key) return &flat_[2 * at + 1];
      if (flat_[2 * at] == 0) return nullptr;
    }
    return nullptr;
  }

  // Start to load the slot's memory.
  void prefetch(uint64_t key) const { __builtin_prefetch(&flat_[2 * (key & mask_)]); }

 private:
  std::span<const uint64_t> flat_;
  uint64_t mask_;
};

// Put a pair into a table made by `slots_for`; false when the key was there.
inline bool insert(std::vector<uint64_t>& flat, uint64_t key, uint64_t value) {
  const uint64_t mask = flat.size() / 2 - 1;
  for (uint64_t at = key & mask;; at = (at + 1) & mask) {
    if (flat[2 * at] == key) return false;
    if (flat[2 * at] != 0) continue;
    flat[2 * at] = key;
    flat[2 * at + 1] = value;
    return true;
  }
}

}  // namespace mj
