#include "lines/names.h"

#include <algorithm>

#include "check.h"

namespace mj {

Named name_documents(std::string_view ids, std::span<const int64_t> sizes,
                     std::span<const int64_t> lines, std::string_view file) {
  const auto nameless = static_cast<size_t>(std::count(sizes.begin(), sizes.end(), 0));
  MJ_CHECK(nameless == lines.size(), "lines must be ", nameless, ", got ", lines.size());
  Named named;
  named.letters.reserve(ids.size() + nameless * (file.size() + 8));
  named.sizes.reserve(sizes.size());
  auto line = lines.begin();
  for (const int64_t size : sizes) {
    MJ_CHECK(size >= 0 && static_cast<size_t>(size) <= ids.size(),
             "sizes must add up to the bytes of ids, got ", size, " with ", ids.size(), " left");
    const size_t before = named.letters.size();
    if (size > 0) {
      named.letters += ids.substr(0, static_cast<size_t>(size));
      ids.remove_prefix(static_cast<size_t>(size));
    } else {
      named.letters += file;
      named.letters += ':';
      named.letters += std::to_string(*line++);
    }
    named.sizes.push_back(static_cast<int64_t>(named.letters.size() - before));
  }
  MJ_CHECK(ids.empty(), "sizes must add up to the bytes of ids, ", ids.size(), " are left");
  return named;
}

}  // namespace mj
