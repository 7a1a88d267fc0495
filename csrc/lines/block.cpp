#include "lines/block.h"

#include <cstring>

#include "check.h"

namespace mj {
namespace {

size_t line_end(std::string_view block, size_t start) {
  const void* found = std::memchr(block.data() + start, '\n', block.size() - start);
  if (found == nullptr) return block.size();
  return static_cast<size_t>(static_cast<const char*>(found) - block.data());
}

bool add_line(LineReader& reader, std::string_view line, std::string_view separator,
              Extracted& found) {
  const size_t before = found.texts.size();
  const size_t ids_before = found.ids.size();
  if (!found.text_sizes.empty()) found.texts += separator;
  const size_t start = found.texts.size();
  if (!reader.read(line, found.texts, found.ids)) {
    found.texts.resize(before);
    return false;
  }
  found.text_sizes.push_back(static_cast<int64_t>(found.texts.size() - start));
  found.id_sizes.push_back(static_cast<int64_t>(found.ids.size() - ids_before));
  return true;
}

}  // namespace

Extracted extract(std::string_view block, Keys keys, std::string_view separator, int64_t limit,
                  Scan scan) {
  MJ_CHECK(limit >= 0, "limit must not be negative, got ", limit);
  Extracted found;
  found.texts.reserve(block.size());
  LineReader reader(keys, scan);
  for (size_t start = 0; start < block.size();) {
    const size_t end = line_end(block, start);
    std::string_view line = block.substr(start, end - start);
    if (end < block.size() && line.ends_with('\r')) line.remove_suffix(1);
    const bool fits = line.size() <= static_cast<size_t>(limit);
    found.sure.push_back(fits && add_line(reader, line, separator, found));
    found.line_ends.push_back(static_cast<int64_t>(end));
    start = end + 1;
  }
  return found;
}

}  // namespace mj
