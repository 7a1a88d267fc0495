#include "copies/shingles.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "check.h"
#include "copies/hash.h"

namespace mj {
namespace {

constexpr uint64_t kBase = 0x9e3779b97f4a7c15ull;  // odd: a polynomial over it mixes all bits
constexpr uint64_t kWord = 0xa0761d6478bd642full;
constexpr uint64_t kLength = 0xe7037ed1a0b428dbull;

// The bits of the first bytes of 16.
struct Mask {
  uint64_t low;
  uint64_t high;
};

constexpr std::array<Mask, 17> make_masks() {
  std::array<Mask, 17> masks{};
  const auto of = [](int bytes) {
    return bytes <= 0 ? 0 : bytes >= 8 ? ~0ull : (1ull << (8 * bytes)) - 1;
  };
  for (int size = 0; size <= 16; ++size) masks[static_cast<size_t>(size)] = {of(size), of(size - 8)};
  return masks;
}

constexpr auto kMasks = make_masks();

uint64_t load8(const char* at) {
  uint64_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// Of [first, last), with 16 bytes behind it that may be read: one multiplication for most words.
uint64_t word_hash(const char* first, const char* last) {
  const auto size = static_cast<uint64_t>(last - first);
  uint64_t hash = size * kBase;
  for (; last - first > 16; first += 16) {
    hash = fold(hash ^ load8(first) ^ kWord, load8(first + 8) ^ kLength);
  }
  const Mask mask = kMasks[static_cast<size_t>(last - first)];
  return fold(hash ^ (load8(first) & mask.low) ^ kWord, (load8(first + 8) & mask.high) ^ kLength);
}

uint64_t power(uint64_t base, size_t exponent) {
  uint64_t result = 1;
  for (size_t i = 0; i < exponent; ++i) result *= base;
  return result;
}

// A polynomial over each run of `size` pieces, moved on by one multiplication a piece.
void roll(const std::vector<uint64_t>& pieces, size_t size, std::vector<uint64_t>& shingles) {
  const size_t count = pieces.size();
  shingles.resize(count < size ? (count > 0) : count - size + 1);
  uint64_t value = 0;
  for (size_t i = 0; i < std::min(size, count); ++i) value = value * kBase + pieces[i];
  if (shingles.empty()) return;
  shingles[0] = fold(value ^ kWord, kLength);
  const uint64_t leaving = power(kBase, size);
  for (size_t i = size; i < count; ++i) {
    value = value * kBase + (pieces[i] - leaving * pieces[i - size]);
    shingles[i - size + 1] = fold(value ^ kWord, kLength);
  }
}

}  // namespace

Shingler::Shingler(std::span<const uint32_t> table, const ShingleRules& rules, Machine machine)
    : letters_(table, machine), rules_(rules), machine_(machine) {
  MJ_CHECK(runs_here(machine), "machine: this one cannot run the code that was asked for");
  MJ_CHECK(rules.words >= 1, "words must be at least 1, got ", rules.words);
  MJ_CHECK(rules.letters >= 1, "letters must be at least 1, got ", rules.letters);
}

void Shingler::of(std::string_view text, ShingleRoom& room) const {
  letters_.fold(text, room.folded);
  auto& pieces = room.pieces;
  pieces.resize(room.folded.size / 2 + 1);
  uint64_t* next = pieces.data();
  each_word(room.folded,
            [&](const char* first, const char* last) { *next++ = word_hash(first, last); });
  pieces.resize(static_cast<size_t>(next - pieces.data()));
  const auto words = static_cast<double>(pieces.size());
  if (static_cast<double>(room.folded.letters) <= rules_.longest * words) {
    return roll(pieces, static_cast<size_t>(rules_.words), room.shingles);
  }
  pieces.clear();
  each_letter(room.folded, [&](uint32_t letter) { pieces.push_back(fold(letter ^ kLength, kWord)); });
  roll(pieces, static_cast<size_t>(rules_.letters), room.shingles);
}

std::string Shingler::normalise(std::string_view text) const {
  Folded folded;
  letters_.fold(text, folded);
  return joined_words(folded);
}

double jaccard(std::vector<uint64_t>& a, std::vector<uint64_t>& b) {
  for (auto* set : {&a, &b}) {
    std::sort(set->begin(), set->end());
    set->erase(std::unique(set->begin(), set->end()), set->end());
  }
  size_t both = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    both += a[i] == b[j];
    const bool left = a[i] <= b[j];
    j += b[j] <= a[i];
    i += left;
  }
  const size_t any = a.size() + b.size() - both;
  return any ? static_cast<double>(both) / static_cast<double>(any) : 0.0;
}

}  // namespace mj
