// Names of documents: their ids, or FILE:LINE.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mj {

struct Named {
  std::string letters;         // names end to end
  std::vector<int64_t> sizes;  // [documents], bytes
};

// ids: end to end, cut by sizes [documents]; those of no bytes become `file:line`, with the numbers
// of `lines` in turn. Raises invalid_argument when sizes or lines do not fit.
Named name_documents(std::string_view ids, std::span<const int64_t> sizes,
                     std::span<const int64_t> lines, std::string_view file);

}  // namespace mj
