// Texts cut into words, much as the tokenizers that web filters were tuned with.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "filters/characters.h"

namespace mj {

struct Span {
  uint32_t start, end;
};

// The words of a text, in order.  White space separates.  Of each piece between spaces
//   - quotes, brackets and marks such as , ; : ! ? are words of their own at its ends, as are runs
//     of two and more dots, and the dot that ends it, unless it is of an abbreviation;
//   - the English 's, n't, 're, 've, 'll, 'd and 'm are words of their own;
//   - inside, hyphens and commas between letters, : < > = / before a letter, signs between digits
//     and the dot of a lost space ("end.Start") separate, and are words;
//   - an address (with :// or @, or from www. on) is one word;
//   - each character of a script without spaces is a word.
std::vector<Span> split_words(std::u32string_view text, const Characters& characters);

}  // namespace mj
