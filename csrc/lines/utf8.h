// Characters of UTF-8.
#pragma once

#include <cstdint>
#include <string>

namespace mj {

inline bool is_tail(const char* at) { return (static_cast<unsigned char>(*at) & 0xC0) == 0x80; }

// Bytes of the valid character that starts at `at`, which is not ASCII; 0 when it is not valid:
// too long for its value, half a surrogate pair, over U+10FFFF or cut short.
inline int character_bytes(const char* at, const char* end) {
  const auto first = static_cast<unsigned char>(*at);
  const auto left = end - at;
  const auto second = left > 1 ? static_cast<unsigned char>(at[1]) : 0;
  if (left < 2 || !is_tail(at + 1)) return 0;
  if (first >= 0xC2 && first <= 0xDF) return 2;
  if (left < 3 || !is_tail(at + 2)) return 0;
  if (first == 0xE0) return second >= 0xA0 ? 3 : 0;
  if (first == 0xED) return second <= 0x9F ? 3 : 0;
  if (first >= 0xE1 && first <= 0xEF) return 3;
  if (left < 4 || !is_tail(at + 3)) return 0;
  if (first == 0xF0) return second >= 0x90 ? 4 : 0;
  if (first == 0xF4) return second <= 0x8F ? 4 : 0;
  return first >= 0xF1 && first <= 0xF3 ? 4 : 0;
}

// The value of a valid character of `bytes` bytes.
inline uint32_t character_value(const char* at, int bytes) {
  if (bytes == 1) return static_cast<unsigned char>(*at);
  uint32_t value = static_cast<unsigned char>(*at) & (0xFFu >> (bytes + 1));
  for (int i = 1; i < bytes; ++i) value = value << 6 | (static_cast<unsigned char>(at[i]) & 0x3F);
  return value;
}

inline void append_character(std::string& out, uint32_t value) {
  const auto tail = [](uint32_t bits) { return static_cast<char>(0x80 | (bits & 0x3F)); };
  if (value < 0x80) {
    out += static_cast<char>(value);
  } else if (value < 0x800) {
    out += {static_cast<char>(0xC0 | value >> 6), tail(value)};
  } else if (value < 0x10000) {
    out += {static_cast<char>(0xE0 | value >> 12), tail(value >> 6), tail(value)};
  } else {
    out += {static_cast<char>(0xF0 | value >> 18), tail(value >> 12), tail(value >> 6),
            tail(value)};
  }
}

// White space as Python's str.isspace has it (Unicode 15: bidirectional WS, B, S, or category Zs).
inline bool is_space(uint32_t value) {
  if (value < 0x80) return (value >= 0x09 && value <= 0x0D) || (value >= 0x1C && value <= 0x20);
  if (value >= 0x2000 && value <= 0x200A) return true;
  switch (value) {
    case 0x85:
    case 0xA0:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x202F:
    case 0x205F:
    case 0x3000:
      return true;
    default:
      return false;
  }
}

}  // namespace mj
