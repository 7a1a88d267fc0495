#include "personal/traces.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace mj {

namespace {

constexpr size_t REACH = 320;         // bytes of an address before or after its @
constexpr size_t GAP = 6;             // bytes between digits of one number: "MT84 MALT 0110"
constexpr size_t BEFORE = 48;         // bytes before a number in which a word may say what it is
constexpr size_t AFTER = 12;          // bytes behind the last digit: letters that check an id
constexpr size_t LONG_RUN = 16;       // letters and digits of a key
constexpr size_t LONGEST_TOKEN = 4096;
constexpr size_t SIGNS = 16;          // bytes between a sign such as = and a value: "  : 'Bearer  "
constexpr size_t LONGEST_KEY = 1 << 16;  // bytes of a private key
constexpr size_t LONGEST_GROUP = 64;  // hexadecimal digits before the first colon that are looked at
constexpr size_t BLOCK = 64;

enum Class : uint8_t { digit = 1, letter = 2, gap = 4, space = 8 };

constexpr std::array<uint8_t, 256> make_classes() {
  std::array<uint8_t, 256> classes{};
  for (int c = 0; c < 256; ++c) {
    const bool lower = c >= 'a' && c <= 'z';
    const bool upper = c >= 'A' && c <= 'Z';
    const bool number = c >= '0' && c <= '9';
    // letters of numbers (IBAN) are capitals, those of IPv6 are hexadecimal; then white space that
    // does not break and dashes, in UTF-8
    const bool between = upper || (c >= 'a' && c <= 'f') || c == ' ' || c == '.' || c == '-' ||
                         c == '/' || c == '(' || c == ')' || c == '+' || c == ':' || c == 0xc2 ||
                         c == 0xa0 || c == 0xe2 || c == 0x80 || c == 0xaf || c == 0x90 || c == 0x91 || c == 0x93;
    uint8_t found = 0;
    if (number) found |= digit;
    if (lower || upper) found |= letter;
    if (between) found |= gap;
    if (c <= 32) found |= space;
    classes[static_cast<size_t>(c)] = found;
  }
  return classes;
}

constexpr auto CLASSES = make_classes();

constexpr std::array<std::string_view, 28> PREFIXES = {
    "AKIA",  "ASIA",  "ghp_",     "gho_",     "ghu_",  "ghs_",  "ghr_",  "github_pat_", "glpat-", "sk-",
    "sk_",   "rk_",   "xoxb-",    "xoxp-",    "xoxa-", "xoxr-", "xoxs-", "AIza",        "eyJ",    "ya29.",
    "npm_",  "pypi-", "hf_",      "SG.",      "dop_v1_", "shpat_", "gsk_", "whsec_"};

// One of these stands in each prefix, and is looked for first: they are seldom.
constexpr std::string_view ANCHORS = "_-.KSzJ";

constexpr std::array<bool, 256> make_secret_signs() {
  std::array<bool, 256> signs{};
  for (const char c : ANCHORS) signs[static_cast<uint8_t>(c)] = true;
  for (const char c : {'=', ':', 'b', 'B'}) signs[static_cast<uint8_t>(c)] = true;
  return signs;
}

constexpr auto SECRET_SIGNS = make_secret_signs();

// In lower case; what a pattern behind it looks for in full.
constexpr std::array<std::string_view, 16> PHONE_WORDS = {
    "tel", "tlf", "phone", "fon", "fax", "mob", "cell", "handy", "vil",
    "call", "whatsapp", "sms", "portable", "dial", "t\xc3\xa9l", "t\xc3\x89l"};
constexpr std::array<std::string_view, 8> ID_WORDS = {"ssn", "social", "steuer", "id",
                                                      "tin", "bsn",    "sofi",   "sin"};

constexpr std::array<std::string_view, 8> SECRET_WORDS = {"secret", "passw", "pwd",        "key",
                                                          "token",  "auth",  "credential", "bearer"};

uint8_t class_at(std::string_view text, size_t at) {
  return CLASSES[static_cast<uint8_t>(text[at])];
}

// The first digit from `at` on; whole blocks without one are passed over by vector instructions.
size_t next_digit(std::string_view text, size_t at) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  while (at + BLOCK <= text.size()) {
    uint8_t any = 0;
    for (size_t i = 0; i < BLOCK; ++i) any |= static_cast<uint8_t>(bytes[at + i] - '0') < 10;
    if (any) break;
    at += BLOCK;
  }
  while (at < text.size() && !(class_at(text, at) & digit)) ++at;
  return at;
}

bool is_hexadecimal(char c) {
  return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

// Widen to where letters and digits end, so that no word is cut.
Trace whole_words(std::string_view text, int64_t kinds, size_t begin, size_t end) {
  const size_t least = begin > LONG_RUN * 4 ? begin - LONG_RUN * 4 : 0;
  const size_t most = std::min(text.size(), end + LONG_RUN * 4);
  while (begin > least && (class_at(text, begin - 1) & (digit | letter))) --begin;
  while (end < most && (class_at(text, end) & (digit | letter))) ++end;
  return {kinds, static_cast<int64_t>(begin), static_cast<int64_t>(end)};
}

void find_addresses(std::string_view text, std::vector<Trace>& traces) {
  for (size_t at = text.find('@'); at != text.npos; at = text.find('@', at + 1)) {
    size_t begin = at, end = at + 1;
    const size_t least = at > REACH ? at - REACH : 0;
    const size_t most = std::min(text.size(), at + REACH);
    while (begin > least && !(class_at(text, begin - 1) & space)) --begin;
    while (end < most && !(class_at(text, end) & space)) ++end;
    traces.push_back({AT_SIGN, static_cast<int64_t>(begin), static_cast<int64_t>(end)});
  }
}

// Runs of hexadecimal digits and colons with a decimal digit, and :: or six colons.
void find_colons(std::string_view text, std::vector<Trace>& traces) {
  for (size_t at = text.find(':'); at != text.npos;) {
    size_t begin = at, end = at, colons = 0;
    bool twice = false, decimal = false;
    while (begin > 0 && at - begin < LONGEST_GROUP && is_hexadecimal(text[begin - 1])) --begin;
    for (size_t i = begin; i < text.size() && (text[i] == ':' || is_hexadecimal(text[i])); end = ++i) {
      const bool colon = text[i] == ':';
      colons += colon;
      twice |= colon && i > begin && text[i - 1] == ':';
      decimal |= text[i] >= '0' && text[i] <= '9';
    }
    if (decimal && (twice || colons >= 6))
      traces.push_back(whole_words(text, COLONS, begin, std::min(text.size(), end + AFTER)));
    at = text.find(':', end);
  }
}

void find_key_blocks(std::string_view text, std::vector<Trace>& traces) {
  constexpr std::string_view mark = "-----BEGIN";
  for (size_t at = text.find(mark); at != text.npos; at = text.find(mark, at + 1)) {
    const size_t end = std::min(text.size(), at + LONGEST_KEY);
    traces.push_back({KEY_BLOCK, static_cast<int64_t>(at), static_cast<int64_t>(end)});
  }
}

template <size_t N>
bool has_word(std::string_view near, const std::array<std::string_view, N>& words) {
  const auto same = [](char a, char b) { return a == b || (a >= 'A' && a <= 'Z' && (a | 0x20) == b); };
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
    return std::search(near.begin(), near.end(), word.begin(), word.end(), same) != near.end();
  });
}

// Digits and what may stand between them, from the digit at `at` on.
class Cluster {
 public:
  Cluster(std::string_view text, size_t at) : text_(text), begin_(at), end_(at) {
    for (size_t since = 0; at < text.size() && since <= GAP; ++at) {
      const uint8_t found = class_at(text, at);
      if (!(found & (digit | gap))) break;
      if (found & digit) {
        most_ = std::max(most_, ++digits_);
        ++all_;
        end_ = at + 1;
        since = 0;
      } else {
        between(text[at]);
        ++since;
      }
    }
  }

  size_t end() const { return end_; }

  int64_t kinds(size_t context) const {
    int64_t found = 0;
    if (dots_ >= 3 && all_ >= 4) found |= DOTTED;
    if (most_ >= 6 && is_lettered()) found |= LETTERED;
    if (most_ >= 7) found |= SEVEN;
    if (most_ >= 9) found |= NINE;
    if (most_ >= 11) found |= ELEVEN;
    if (most_ >= 13) found |= THIRTEEN;
    const auto near = text_.substr(context, end_ - context);
    if (most_ >= 7 && has_word(near, PHONE_WORDS)) found |= PHONE_WORD;
    if (most_ >= 8 && has_word(near, ID_WORDS)) found |= ID_WORD;
    return found;
  }

 private:
  // A colon ends a number.
  void between(char c) {
    dots_ += c == '.';
    capitals_ |= c >= 'A' && c <= 'Z';
    if (c == ':') digits_ = 0;
  }

  bool is_lettered() const {
    const auto capital = [&](size_t at) {
      return at < text_.size() && text_[at] >= 'A' && text_[at] <= 'Z';
    };
    return capitals_ || (begin_ > 0 && (capital(begin_ - 1) || (begin_ > 1 && capital(begin_ - 2)))) ||
           capital(end_) || capital(end_ + 1);
  }

  std::string_view text_;
  size_t begin_, end_;  // of the digits
  size_t digits_ = 0, most_ = 0, all_ = 0, dots_ = 0;
  bool capitals_ = false;
};

bool is_value(char c) {
  return (CLASSES[static_cast<uint8_t>(c)] & (digit | letter)) || c == '_' || c == '-' || c == '.' ||
         c == '+' || c == '/' || c == '~';
}

// Digits among letters by turns, or small letters and capitals: as in random text, seldom in names.
// What it says no to, redact_checks.chance_token does as well.
bool looks_random(std::string_view value) {
  size_t digits = 0, letters = 0, turns = 0, changes = 0;
  int before = 0;
  for (const char c : value) {
    const bool number = c >= '0' && c <= '9';
    const bool capital = c >= 'A' && c <= 'Z';
    const int kind = number ? 3 : capital ? 2 : c >= 'a' && c <= 'z' ? 1 : 0;
    if (!kind) continue;
    digits += number;
    letters += !number;
    turns += before && (before == 3) != number;
    changes += before && before != kind;
    before = kind;
  }
  return (digits >= 2 && letters >= 4 && turns >= 3) || 20 * changes >= 9 * (digits + letters);
}

// The value that begins at `begin` or a few signs behind it, when a word before says what it is.
void find_secret(std::string_view text, size_t begin, std::vector<Trace>& traces) {
  const size_t latest = std::min(text.size(), begin + SIGNS);
  const size_t context = begin > BEFORE ? begin - BEFORE : 0;
  for (size_t tries = 0; tries < 2; ++tries) {  // "Authorization: Bearer VALUE"
    while (begin < latest && !(class_at(text, begin) & (digit | letter))) ++begin;
    size_t end = begin;
    while (end < text.size() && is_value(text[end])) ++end;
    const auto value = text.substr(begin, end - begin);
    if (value.size() >= LONG_RUN && looks_random(value) &&
        has_word(text.substr(context, begin - context), SECRET_WORDS)) {
      end = std::min({end, begin + LONGEST_TOKEN, text.size()});
      end = std::min(text.size(), end + 2);  // = at the end of base64
      traces.push_back({SECRET_WORD, static_cast<int64_t>(context), static_cast<int64_t>(end)});
      return;
    }
    begin = end;
  }
}

// The prefix of a key whose sign in ANCHORS stands at `at`, and what follows it.
void find_key(std::string_view text, size_t at, std::vector<Trace>& traces) {
  for (const auto prefix : PREFIXES) {
    const size_t anchor = prefix.find_first_of(ANCHORS);
    if (prefix[anchor] != text[at] || at < anchor || !text.substr(at - anchor).starts_with(prefix)) continue;
    const size_t begin = at - anchor;
    size_t end = begin + prefix.size();
    while (end < text.size() && end < begin + LONGEST_TOKEN && !(class_at(text, end) & space)) ++end;
    if (end - begin < LONG_RUN) continue;
    const size_t context = begin > BEFORE ? begin - BEFORE : 0;
    traces.push_back({TOKEN, static_cast<int64_t>(context), static_cast<int64_t>(end)});
    return;
  }
}

void find_secrets(std::string_view text, std::vector<Trace>& traces) {
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (!SECRET_SIGNS[static_cast<uint8_t>(c)]) continue;
    if (c == '=' || c == ':') {
      find_secret(text, at + 1, traces);
    } else if ((c | 0x20) == 'b') {
      if (text.substr(at + 1, 5) == "earer") find_secret(text, at + 6, traces);
    } else {
      find_key(text, at, traces);
    }
  }
}

void find_numbers(std::string_view text, std::vector<Trace>& traces) {
  for (size_t at = next_digit(text, 0); at < text.size();) {
    const Cluster cluster(text, at);
    const size_t begin = at > BEFORE ? at - BEFORE : 0;
    if (const int64_t kinds = cluster.kinds(begin)) {
      traces.push_back(whole_words(text, kinds, begin, std::min(text.size(), cluster.end() + AFTER)));
    }
    at = next_digit(text, cluster.end());
  }
}

}  // namespace

std::vector<Trace> find_traces(std::string_view text) {
  std::vector<Trace> traces;
  find_addresses(text, traces);
  find_key_blocks(text, traces);
  find_colons(text, traces);
  find_secrets(text, traces);
  find_numbers(text, traces);
  return traces;
}

}  // namespace mj
