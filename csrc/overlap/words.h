// Words of UTF-8 text: runs of letters, digits and marks. A letter of a script that is written
// without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) is a word of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace mj {

struct Word {
  std::size_t start;  // bytes
  std::size_t end;
};

// All words, in order. Bytes that are no UTF-8 count as letters.
void cut_words(std::string_view text, std::vector<Word>& words);

}  // namespace mj
