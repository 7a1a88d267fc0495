// Items with equal keys brought together, and the edges between those that are copies.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mj {

struct Entry {
  uint64_t key;
  int64_t number;
};

struct Edge {
  int64_t high;
  int64_t low;  // below `high`
};

inline bool before(const Entry& a, const Entry& b) {
  return a.key < b.key || (a.key == b.key && a.number < b.number);
}

// Sort by (key, number): radix by the highest bits that differ, runs in threads.
void sort_entries(std::span<Entry> entries, int threads);

// Of each run of equal keys an edge from every number but the first to the first.
// Sorted entries; a number twice in a run is one.
std::vector<Edge> run_stars(std::span<const Entry> entries);

// How two signatures are compared.
enum class Measure {
  kEqual,    // all bytes
  kHamming,  // bits that differ
  kMinhash,  // estimate of the Jaccard similarity from the lower 8 bits of each minimum
};

struct Signatures {
  std::span<const uint8_t> bytes;  // [rows, width]
  size_t width;
  Measure measure;

  // The larger the nearer: 0 or 1; minus the differing bits; the estimate.
  double nearness(size_t a, size_t b) const;
};

// (matches / width - 2^-8) / (1 - 2^-8): what 8-bit minima that agree by chance leave.
// Source: Li and Koenig 2010, b-bit minwise hashing, with b = 8.
double minhash_estimate(size_t matches, size_t width);

// Like `run_stars`, but only numbers whose signatures are near enough are joined: of each run a
// spanning forest of them.  rows [entries]: the row of each entry's signature.  An item is compared
// with `most` earlier ones of its run at most.
std::vector<Edge> near_edges(std::span<const Entry> entries, std::span<const int64_t> rows,
                             const Signatures& signatures, double least, int64_t most);

}  // namespace mj
