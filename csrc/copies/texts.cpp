#include "copies/texts.h"

#include <atomic>

#include "check.h"
#include "copies/hash.h"
#include "copies/simhash.h"
#include "threads.h"

namespace mj {
namespace {

constexpr size_t kAtOnce = 16;  // texts that a thread takes at a time

// Call work(make(), text number) for each text; threads take the next texts as they get done.
template <typename Make, typename Work>
void each_text(size_t count, int threads, const Make& make, const Work& work) {
  std::atomic<size_t> next = 0;
  run_threads(threads, threads, [&](int, int64_t, int64_t) {
    auto room = make();
    for (size_t first; (first = next.fetch_add(kAtOnce)) < count;) {
      for (size_t i = first; i < std::min(count, first + kAtOnce); ++i) work(room, i);
    }
  });
}

}  // namespace

MinhashOut minhash_texts(Texts texts, const Shingler& shingler, const Permutations& permutations,
                         int bands, int rows, int threads) {
  MJ_CHECK(bands >= 1 && rows >= 1 && bands * rows == permutations.count(), "bands * rows must be ",
           permutations.count(), ", got ", bands, " * ", rows);
  const auto width = static_cast<size_t>(bands) * static_cast<size_t>(rows);
  const auto height = static_cast<size_t>(bands);
  MinhashOut out{std::vector<uint64_t>(texts.size() * height),
                 std::vector<uint8_t>(texts.size() * width), std::vector<int64_t>(texts.size())};
  struct Room {
    ShingleRoom text;
    std::vector<uint32_t> minima;
  };
  const auto make = [&] { return Room{{}, std::vector<uint32_t>(width)}; };
  each_text(texts.size(), threads, make, [&](Room& room, size_t i) {
    shingler.of(texts[i], room.text);
    out.shingles[i] = static_cast<int64_t>(room.text.shingles.size());
    permutations.least(room.text.shingles, room.minima);
    band_keys(room.minima, rows, {out.keys.data() + i * height, height});
    for (size_t j = 0; j < width; ++j) {
      out.signatures[i * width + j] = static_cast<uint8_t>(room.minima[j]);
    }
  });
  return out;
}

SimhashOut simhash_texts(Texts texts, const Shingler& shingler, std::span<const uint64_t> masks,
                         int threads) {
  SimhashOut out{std::vector<uint64_t>(texts.size()),
                 std::vector<uint64_t>(texts.size() * masks.size()),
                 std::vector<int64_t>(texts.size())};
  const auto make = [] { return ShingleRoom(); };
  each_text(texts.size(), threads, make, [&](ShingleRoom& room, size_t i) {
    shingler.of(texts[i], room);
    out.shingles[i] = static_cast<int64_t>(room.shingles.size());
    out.values[i] = simhash(room.shingles, shingler.machine());
    masked_keys(out.values[i], masks, {out.keys.data() + i * masks.size(), masks.size()});
  });
  return out;
}

SpansOut span_texts(Texts texts, const Shingler& shingler, SpanKind kind, size_t least,
                    int threads) {
  std::vector<std::vector<Span>> found(texts.size());
  const auto make = [] { return 0; };
  each_text(texts.size(), threads, make, [&](int, size_t i) {
    find_spans(texts[i], kind, least, shingler, found[i]);
  });
  SpansOut out;
  for (const auto& spans : found) {
    for (const auto& span : spans) {
      out.hashes.insert(out.hashes.end(), {span.first, span.second});
      out.places.push_back(static_cast<int64_t>(span.start));
      out.places.push_back(static_cast<int64_t>(span.end));
    }
    out.ends.push_back(static_cast<int64_t>(out.places.size() / 2));
  }
  return out;
}

HashesOut hash_texts(Texts texts, const Shingler& shingler, int threads) {
  HashesOut out{std::vector<uint64_t>(2 * texts.size()), std::vector<int64_t>(texts.size())};
  const auto make = [] { return 0; };
  each_text(texts.size(), threads, make, [&](int, size_t i) {
    const std::string letters = shingler.normalise(texts[i]);
    const auto [first, second] = hash128(letters, 0);
    out.hashes[2 * i] = first;
    out.hashes[2 * i + 1] = second;
    out.lengths[i] = static_cast<int64_t>(letters.size());
  });
  return out;
}

}  // namespace mj
