// Whole lines of JSON at once: texts end to end, and which lines must be judged elsewhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lines/json.h"

namespace mj {

struct Extracted {
  std::string texts;                // of the lines that are sure, `separator` between them
  std::string ids;                  // theirs, end to end
  std::vector<int64_t> text_sizes;  // [sure lines], bytes
  std::vector<int64_t> id_sizes;    // [sure lines], bytes; 0: it has none
  std::vector<int64_t> line_ends;   // [lines], bytes into the block, where the \n is, or the end
  std::vector<uint8_t> sure;        // [lines], 1 or 0
};

// What the lines of `block` hold. The last one may lack its \n. One \r before a \n is no part of a
// line; a line of over `limit` bytes is never sure.
Extracted extract(std::string_view block, Keys keys, std::string_view separator, int64_t limit,
                  Scan scan);

}  // namespace mj
