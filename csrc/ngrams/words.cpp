#include "ngrams/words.h"

#include <array>

namespace mj {

namespace {

constexpr uint64_t START = 0xcbf29ce484222325ull;  // FNV-1a
constexpr uint64_t PRIME = 0x100000001b3ull;

enum Kind : uint8_t { space, line_end, part, alone, wide };

struct Byte {
  Kind kind;
  uint8_t folded;
};

constexpr std::array<Byte, 256> make_bytes(bool fold) {
  std::array<Byte, 256> bytes{};
  for (int b = 0; b < 256; ++b) {
    const bool blank = b <= 32 || b == 127;
    const bool digit = b >= '0' && b <= '9';
    const bool upper = b >= 'A' && b <= 'Z';
    const bool letter = upper || (b >= 'a' && b <= 'z');
    Kind kind = blank ? space : part;
    if (b == '\n') kind = line_end;
    if (fold && !blank && !digit && !letter) kind = b < 128 ? alone : wide;
    const int folded = !fold ? b : digit ? '0' : upper ? b + 32 : b;
    bytes[static_cast<size_t>(b)] = {kind, static_cast<uint8_t>(folded)};
  }
  return bytes;
}

constexpr auto FOLDED = make_bytes(true);
constexpr auto PLAIN = make_bytes(false);

struct Character {
  uint32_t code;
  size_t size;  // bytes
};

// The character at `at`, whose first byte is not ASCII; a byte that begins none stands for itself.
Character decode(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[at + i]); };
  const uint8_t first = byte(0);
  const size_t size = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (size == 1 || at + size > text.size()) return {first, 1};
  uint32_t code = first & (0xffu >> (size + 1));
  for (size_t i = 1; i < size; ++i) code = (code << 6) | (byte(i) & 0x3fu);
  return {code, size};
}

bool within(uint32_t code, uint32_t first, uint32_t last) { return code >= first && code <= last; }

Kind kind_of(uint32_t code) {
  if (code == 0xa0 || within(code, 0x2000, 0x200d) || within(code, 0x2028, 0x202f) ||
      code == 0x3000 || code == 0xfeff)
    return space;
  if (code == 0xaa || code == 0xb5 || code == 0xba) return part;
  if (within(code, 0x80, 0xbf) || code == 0xd7 || code == 0xf7) return alone;
  // punctuation and signs; Chinese and Japanese; full-width punctuation; emoji and rarer Chinese
  if (within(code, 0x2010, 0x2bff) || within(code, 0x2e00, 0x9fff) ||
      within(code, 0xf900, 0xfaff) || within(code, 0xff00, 0xffef) || code >= 0x1f000)
    return alone;
  return part;
}

uint32_t fold(uint32_t code) {
  if (within(code, 0xc0, 0xde) && code != 0xd7) return code + 32;
  if (within(code, 0x100, 0x137) || within(code, 0x14a, 0x177)) return code | 1;
  if (within(code, 0x139, 0x148) || within(code, 0x179, 0x17e)) return code + (code & 1);
  if (within(code, 0x391, 0x3a9)) return code + 32;
  if (within(code, 0x410, 0x42f)) return code + 32;
  if (within(code, 0x400, 0x40f)) return code + 80;
  if (code == 0x2018 || code == 0x2019) return '\'';
  if (code == 0x201c || code == 0x201d) return '"';
  if (within(code, 0x2010, 0x2015)) return '-';
  return code;
}

uint64_t finish(uint64_t hash) {
  hash = scatter(hash);
  return hash == LINE_END ? 1 : hash;
}

class Splitter {
 public:
  Splitter(bool lines, std::vector<uint64_t>& hashes) : lines_(lines), hashes_(hashes) {}

  void end_word() {
    if (!open_) return;
    push(hash_);
    hash_ = START;
    open_ = false;
  }

  void end_line() {
    end_word();
    if (lines_ && words_) hashes_.push_back(LINE_END);
    words_ = false;
  }

  // Go on with a word over `text` from `at` while `bytes` has parts of one; the place behind.
  size_t run(std::string_view text, size_t at, const std::array<Byte, 256>& bytes) {
    uint64_t hash = hash_;
    for (; at < text.size(); ++at) {
      const Byte byte = bytes[static_cast<uint8_t>(text[at])];
      if (byte.kind != part) break;
      hash = (hash ^ byte.folded) * PRIME;
    }
    hash_ = hash;
    open_ = true;
    return at;
  }

  void alone_character(uint32_t code) {
    end_word();
    push((START ^ code) * PRIME);
  }

  size_t wide_character(std::string_view text, size_t at) {
    const Character found = decode(text, at);
    const Kind kind = kind_of(found.code);
    const uint32_t code = fold(found.code);
    if (kind == space) end_word();
    if (kind == alone) alone_character(code);
    if (kind == part) {
      hash_ = (hash_ ^ code) * PRIME;
      open_ = true;
    }
    return at + found.size;
  }

 private:
  void push(uint64_t hash) {
    hashes_.push_back(finish(hash));
    words_ = true;
  }

  bool lines_;
  std::vector<uint64_t>& hashes_;
  uint64_t hash_ = START;
  bool open_ = false;   // inside a word
  bool words_ = false;  // the line has one
};

}  // namespace

void hash_words(std::string_view text, Splitting splitting, bool lines,
                std::vector<uint64_t>& hashes) {
  const auto& bytes = splitting == Splitting::folded ? FOLDED : PLAIN;
  Splitter splitter(lines, hashes);
  for (size_t at = 0; at < text.size();) {
    const Byte byte = bytes[static_cast<uint8_t>(text[at])];
    switch (byte.kind) {
      case part:
        at = splitter.run(text, at, bytes);
        continue;
      case wide:
        at = splitter.wide_character(text, at);
        continue;
      case alone:
        splitter.alone_character(byte.folded);
        break;
      case line_end:
        splitter.end_line();
        break;
      case space:
        splitter.end_word();
        break;
    }
    ++at;
  }
  splitter.end_line();
}

}  // namespace mj
