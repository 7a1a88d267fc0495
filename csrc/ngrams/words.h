// The words of a text as 64-bit hashes: what models of n-grams see of it.
//
// Folded (version 1), for text as it comes: UTF-8, letters in lower case (ASCII, Latin, Greek,
// Cyrillic), each digit a 0, curly quotes and long dashes as their ASCII ones.  A word is a run of
// letters and digits; any other visible character, and each of Chinese and Japanese script, is a
// word of its own.  Plain: what stands between ASCII white space, as it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mj {

constexpr int WORDS_VERSION = 1;
constexpr uint64_t LINE_END = 0;  // no word has this hash

enum class Splitting { folded, plain };

// Append the hashes of the words of `text`; with `lines`, LINE_END after each line that has a word.
void hash_words(std::string_view text, Splitting splitting, bool lines,
                std::vector<uint64_t>& hashes);

// Scatters the bits of a number (the end of MurmurHash3's 64-bit mixing).
inline uint64_t scatter(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return x ^ (x >> 33);
}

}  // namespace mj
