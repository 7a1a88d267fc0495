// Where personal data may stand in a text: a fast look that lets nothing pass which the exact
// patterns (megatron_jobs/text/redact_kinds.py) would take, and little else.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace mj {

// What a trace may be; bits.
constexpr int64_t AT_SIGN = 1;        // the words around an @
constexpr int64_t KEY_BLOCK = 2;      // -----BEGIN
constexpr int64_t TOKEN = 4;          // a long run of letters and digits that begins as keys do
constexpr int64_t DOTTED = 8;         // digits with three dots, perhaps an IPv4 address
constexpr int64_t COLONS = 16;        // hexadecimal, :: or six colons, perhaps an IPv6 address
constexpr int64_t LETTERED = 32;      // six digits close together, and a capital beside one
constexpr int64_t SEVEN = 64;         // seven digits and more that stand close together
constexpr int64_t NINE = 128;
constexpr int64_t ELEVEN = 256;
constexpr int64_t THIRTEEN = 512;
constexpr int64_t PHONE_WORD = 1024;  // seven digits with a word near that announces a telephone
constexpr int64_t ID_WORD = 2048;     // eight digits with one that announces a national number
constexpr int64_t SECRET_WORD = 4096;  // a long run that looks random behind a word such as token

struct Trace {
  int64_t kinds;
  int64_t begin, end;  // bytes
};

std::vector<Trace> find_traces(std::string_view text);

}  // namespace mj
