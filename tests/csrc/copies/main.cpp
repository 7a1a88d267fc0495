// Copies of texts: on every machine the same, beside slow versions.
#include <algorithm>
#include <bit>
#include <numeric>
#include <random>

#include "copies/bloom.h"
#include "copies/hash.h"
#include "copies/links.h"
#include "copies/minhash.h"
#include "copies/runs.h"
#include "copies/shingles.h"
#include "copies/simhash.h"
#include "copies/spans.h"
#include "exact.h"

namespace {

std::vector<uint32_t> table() {
  std::vector<uint32_t> made(mj::kTableSize, mj::kSeparates);
  for (uint32_t c = 'a'; c <= 'z'; ++c) made[c] = made[c - 32] = c;
  for (uint32_t c = '0'; c <= '9'; ++c) made[c] = mj::kDigit;
  for (uint32_t c = 0xc0; c < 0x250; ++c) made[c] = c;
  for (uint32_t c = 0x4e00; c < 0x9fff; ++c) made[c] = c;
  return made;
}

std::vector<mj::Machine> machines() {
  std::vector<mj::Machine> found;
  for (const auto each :
       {mj::Machine::plain, mj::Machine::sse41, mj::Machine::avx2, mj::Machine::avx512}) {
    if (mj::runs_here(each)) found.push_back(each);
  }
  return found;
}

void look_at(std::string_view text, const std::vector<uint32_t>& letters) {
  mj::hash128(text, 1);
  std::vector<uint64_t> plain;
  for (const auto machine : machines()) {
    const mj::Shingler shingler(letters, {2, 3, 20}, machine);
    mj::ShingleRoom room;
    shingler.of(text, room);
    if (machine == mj::Machine::plain) plain = room.shingles;
    exact::check(room.shingles == plain, "shingles differ", text);
    for (const auto kind :
         {mj::SpanKind::kLine, mj::SpanKind::kParagraph, mj::SpanKind::kSentence}) {
      std::vector<mj::Span> spans;
      mj::find_spans(text, kind, 1, shingler, spans);
      for (const auto& span : spans) {
        exact::check(span.start < span.end && span.end <= text.size(), "no span", text);
      }
    }
  }
}

void compare_sets(size_t size) {
  std::mt19937_64 draw(size);
  std::vector<uint64_t> shingles(size);
  for (auto& each : shingles) each = draw();
  std::vector<uint32_t> wanted;
  uint64_t bits = 0;
  for (int bit = 0; bit < 64; ++bit) {
    size_t set = 0;
    for (const auto each : shingles) set += each >> bit & 1;
    bits |= static_cast<uint64_t>(2 * set > size) << bit;
  }
  for (const auto machine : machines()) {
    exact::check(mj::simhash(shingles, machine) == bits, "a SimHash differs");
    std::vector<uint32_t> minima(37);
    mj::Permutations(37, 5, machine).least(shingles, minima);
    if (machine == mj::Machine::plain) wanted = minima;
    exact::check(minima == wanted, "minima differ");
  }
}

void compare_runs(size_t size) {
  std::mt19937_64 draw(size);
  std::vector<mj::Entry> entries(size);
  for (size_t i = 0; i < size; ++i) entries[i] = {draw() % 50 << 40, static_cast<int64_t>(i)};
  std::shuffle(entries.begin(), entries.end(), draw);
  auto wanted = entries;
  std::sort(wanted.begin(), wanted.end(), mj::before);
  mj::sort_entries(entries, 3);
  const auto same = [](const mj::Entry& a, const mj::Entry& b) {
    return a.key == b.key && a.number == b.number;
  };
  exact::check(std::equal(entries.begin(), entries.end(), wanted.begin(), wanted.end(), same),
               "entries differ");
  mj::Links links(0, static_cast<int64_t>(size));
  links.add(mj::run_stars(entries));
  for (const auto& entry : entries) {
    const auto first = std::find_if(wanted.begin(), wanted.end(),
                                    [&](const mj::Entry& each) { return each.key == entry.key; });
    exact::check(links.top(entry.number) == first->number, "components differ");
  }
}

}  // namespace

int main() {
  const auto letters = table();
  exact::each_hostile([&](std::string_view text) { look_at(text, letters); });
  for (const size_t size : {1, 2, 15, 16, 17, 257}) compare_sets(size);
  for (const size_t size : {0, 1, 2, 257, 5003}) compare_runs(size);
  const auto [first, second] = mj::hash128(exact::Text("hello"), 0);
  exact::check(first == 0xcbd8a7b341bd9b02 && second == 0x5b1e906a48ae1d19, "not MurmurHash3");
  mj::Bloom bloom(100, 0.01);
  std::vector<uint64_t> keys(100);
  std::iota(keys.begin(), keys.end(), uint64_t{1} << 40);
  std::vector<uint8_t> present(keys.size());
  bloom.add(keys, present);
  bloom.add(keys, present);
  exact::check(std::count(present.begin(), present.end(), 1) == 100, "a key is lost");
  return exact::faults == 0 ? 0 : 1;
}
