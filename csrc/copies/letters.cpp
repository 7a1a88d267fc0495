#include "copies/letters.h"

#include <algorithm>
#include <cstring>

#include "check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mj {
namespace {

char* put_utf8(char* out, uint32_t point) {
  const auto put = [&](uint32_t byte) { *out++ = static_cast<char>(byte); };
  if (point < 0x80) {
    put(point);
  } else if (point < 0x800) {
    put(0xc0 | (point >> 6));
    put(0x80 | (point & 0x3f));
  } else if (point < 0x10000) {
    put(0xe0 | (point >> 12));
    put(0x80 | ((point >> 6) & 0x3f));
    put(0x80 | (point & 0x3f));
  } else {
    put(0xf0 | (point >> 18));
    put(0x80 | ((point >> 12) & 0x3f));
    put(0x80 | ((point >> 6) & 0x3f));
    put(0x80 | (point & 0x3f));
  }
  return out;
}

constexpr uint8_t kAsciiDigit = 0x80 | '0';
constexpr ptrdiff_t kBlock = 64;  // bytes folded one by one before many are tried again

}  // namespace

// How far a text is folded.
struct FoldState {
  const uint8_t* at;
  const uint8_t* end;
  char* out;
  size_t more = 0;     // bytes behind the first of a letter
  bool digit = false;  // the last letter was a kDigit
};

namespace {

// Fold from `state.at` on, vector by vector, up to one that holds a kDigit or is not all ASCII.
using FoldMany = void (*)(FoldState& state, const AsciiTable& table);

void many_plain(FoldState&, const AsciiTable&) {}  // one by one is as fast

#if defined(__x86_64__)

// Entries 16 * row to 16 * row + 15 of the table, where a byte is of them; otherwise 0.
MJ_SSE41 inline __m128i of_row(__m128i bytes, const AsciiTable& table, size_t row) {
  const auto entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(&table[16 * row]));
  const auto place = _mm_xor_si128(bytes, _mm_set1_epi8(static_cast<char>(16 * row)));
  return _mm_shuffle_epi8(entries, _mm_adds_epu8(place, _mm_set1_epi8(0x70)));
}

MJ_SSE41 void many_sse41(FoldState& state, const AsciiTable& table) {
  for (; state.end - state.at >= 16; state.at += 16, state.out += 16) {
    const auto bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state.at));
    auto letters = _mm_setzero_si128();
    for (size_t row = 0; row < 8; ++row) letters = _mm_or_si128(letters, of_row(bytes, table, row));
    if (_mm_movemask_epi8(_mm_or_si128(bytes, letters))) return;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state.out), letters);
    state.digit = false;
  }
}

MJ_AVX2 inline __m256i of_row_wide(__m256i bytes, const AsciiTable& table, size_t row) {
  const auto entries = _mm256_broadcastsi128_si256(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(&table[16 * row])));
  const auto place = _mm256_xor_si256(bytes, _mm256_set1_epi8(static_cast<char>(16 * row)));
  return _mm256_shuffle_epi8(entries, _mm256_adds_epu8(place, _mm256_set1_epi8(0x70)));
}

MJ_AVX2 void many_avx2(FoldState& state, const AsciiTable& table) {
  for (; state.end - state.at >= 32; state.at += 32, state.out += 32) {
    const auto bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(state.at));
    auto letters = _mm256_setzero_si256();
    for (size_t row = 0; row < 8; ++row) {
      letters = _mm256_or_si256(letters, of_row_wide(bytes, table, row));
    }
    if (_mm256_movemask_epi8(_mm256_or_si256(bytes, letters))) return;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(state.out), letters);
    state.digit = false;
  }
}

MJ_VBMI void many_vbmi(FoldState& state, const AsciiTable& table) {
  const auto low = _mm512_loadu_si512(table.data());
  const auto high = _mm512_loadu_si512(table.data() + 64);
  for (; state.end - state.at >= 64; state.at += 64, state.out += 64) {
    const auto bytes = _mm512_loadu_si512(state.at);
    const auto letters = _mm512_permutex2var_epi8(low, bytes, high);
    if (_mm512_movepi8_mask(_mm512_or_si512(bytes, letters))) return;
    _mm512_storeu_si512(state.out, letters);
    state.digit = false;
  }
}

#endif

FoldMany fold_many_on(Machine machine) {
#if defined(__x86_64__)
  const bool vbmi = __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bw");
  if (machine == Machine::avx512 && vbmi) return many_vbmi;
  if (machine == Machine::avx512 || machine == Machine::avx2) return many_avx2;
  if (machine == Machine::sse41) return many_sse41;
#endif
  return many_plain;
}

}  // namespace

Letters::Letters(std::span<const uint32_t> table, Machine machine)
    : table_(table.begin(), table.end()), machine_(machine) {
  MJ_CHECK(table.size() == kTableSize, "table must hold ", kTableSize, " code points, got ",
           table.size());
  for (size_t point = 0; point < 128; ++point) {
    const uint32_t letter = table[point];
    MJ_CHECK(letter < 128, "table: ", letter, " of code point ", point, " must be below 128");
    ascii_[point] = letter == kDigit ? kAsciiDigit : letter > kDigit ? static_cast<uint8_t>(letter) : 0;
  }
}

// Fold letter by letter from `state.at` on, up to one that begins at `stop` or behind it.
void Letters::fold_each(FoldState& state, const uint8_t* stop) const {
  auto [at, end, out, more, digit] = state;
  while (at < stop) {
    if (*at < 0x80) [[likely]] {
      const uint8_t letter = ascii_[*at++];
      const bool now = letter >> 7;
      *out = static_cast<char>(letter & 0x7f);
      out += !(now & digit);
      digit = now;
      continue;
    }
    const uint32_t point = next_code_point(at, end);
    const uint32_t letter = point < kTableSize ? table_[point] : point;
    if (letter == kDropped) continue;
    const bool now = letter == kDigit;
    if (!(now & digit)) {
      char* const first = out;
      out = put_utf8(out, now ? '0' : letter);
      more += static_cast<size_t>(out - first) - 1;
    }
    digit = now;
  }
  state = {at, end, out, more, digit};
}

// Two bytes become four at most, one stays one: a text doubles at most.
void Letters::fold(std::string_view text, Folded& folded) const {
  const size_t room = 2 * text.size() + 2 * kPadding;
  if (folded.bytes.size() < room) folded.bytes.resize(room);
  char* const begin = folded.bytes.data();
  const auto* const first = reinterpret_cast<const uint8_t*>(text.data());
  FoldState state{first, first + text.size(), begin};
  const FoldMany fold_many = fold_many_on(machine_);
  while (state.at < state.end) {
    fold_many(state, ascii_);
    fold_each(state, state.at + std::min(kBlock, state.end - state.at));
  }
  folded.size = static_cast<size_t>(state.out - begin);
  std::memset(state.out, 0, kPadding);
  size_t letters = 0;
  for (const char* at = begin; at < state.out; at += 64) {
    letters += static_cast<size_t>(std::popcount(letter_mask(at)));
  }
  folded.letters = letters - state.more;
}

std::string joined_words(const Folded& folded) {
  std::string result;
  result.reserve(folded.size);
  each_word(folded, [&](const char* first, const char* last) {
    if (!result.empty()) result.push_back(' ');
    result.append(first, last);
  });
  return result;
}

}  // namespace mj
