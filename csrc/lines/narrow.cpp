#include "lines/narrow.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "check.h"

namespace mj {
namespace {

constexpr size_t kLongest = std::numeric_limits<int32_t>::max();

// Adds the tokens of one text; how many.
template <typename Token>
size_t add_text(std::span<const uint32_t> ids, const Frame& frame, int64_t vocab,
                std::vector<Token>& tokens) {
  const size_t before = tokens.size();
  uint32_t largest = 0;
  for (const uint32_t id : ids) largest = std::max(largest, id);
  MJ_CHECK(ids.empty() || largest < vocab, "ids must be below ", vocab, ", got ", largest);
  tokens.insert(tokens.end(), frame.before.begin(), frame.before.end());
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  tokens.insert(tokens.end(), frame.after.begin(), frame.after.end());
  return tokens.size() - before;
}

}  // namespace

template <typename Token>
Narrowed<Token> narrow(std::span<const uint32_t> ids, uint32_t separator,
                       std::span<const int64_t> texts, const Frame& frame, int64_t vocab) {
  const int64_t wanted = std::accumulate(texts.begin(), texts.end(), int64_t{0});
  const int64_t found = std::count(ids.begin(), ids.end(), separator) + 1;
  MJ_CHECK(found == std::max(wanted, int64_t{1}), "texts add up to ", wanted, ", ids hold ", found);
  MJ_CHECK(wanted > 0 || ids.empty(), "ids must be none for no texts, got ", ids.size());
  Narrowed<Token> out;
  out.tokens.reserve(ids.size() + texts.size() * (1 + frame.before.size() + frame.after.size()));
  out.lengths.reserve(static_cast<size_t>(wanted));
  auto at = ids.begin();
  for (const int64_t count : texts) {
    MJ_CHECK(count >= 1, "texts must be at least 1 for each document, got ", count);
    const size_t before = out.lengths.size();
    for (int64_t text = 0; text < count; ++text) {
      const auto end = std::find(at, ids.end(), separator);
      const size_t size = add_text<Token>({at, end}, frame, vocab, out.tokens);
      MJ_CHECK(size < kLongest, "a sequence must be below ", kLongest, " tokens, got ", size);
      if (size > 0) out.lengths.push_back(static_cast<int32_t>(size));
      at = end == ids.end() ? end : end + 1;
    }
    const size_t sequences = out.lengths.size() - before;
    if (sequences > 0 && frame.eod >= 0) {
      out.tokens.push_back(static_cast<Token>(frame.eod));
      ++out.lengths.back();
    }
    out.sequences.push_back(static_cast<int32_t>(sequences));
  }
  return out;
}

template Narrowed<uint16_t> narrow(std::span<const uint32_t>, uint32_t, std::span<const int64_t>,
                                   const Frame&, int64_t);
template Narrowed<int32_t> narrow(std::span<const uint32_t>, uint32_t, std::span<const int64_t>,
                                  const Frame&, int64_t);

}  // namespace mj
