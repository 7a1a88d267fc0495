#include "lines/json.h"

#include <cstdint>

#include "lines/utf8.h"

namespace mj {
namespace {

constexpr int kDepth = 64;
constexpr size_t kDigits = 1000;  // Python refuses to read numbers of over 4,300

}  // namespace

// What a line has given so far.
struct LineReader::Out {
  std::string& texts;
  std::string& ids;
  size_t text_start;
  bool has_text = false;
  bool has_id = false;
};

bool LineReader::read(std::string_view line, std::string& texts, std::string& ids) {
  at_ = line.data();
  end_ = at_ + line.size();
  const size_t ids_before = ids.size();
  Out out{texts, ids, texts.size()};
  const bool whole = object(out) && (space(), at_ == end_) && out.has_text;
  if (whole && has_letters(std::string_view(texts).substr(out.text_start))) return true;
  texts.resize(out.text_start);
  ids.resize(ids_before);
  return false;
}

bool LineReader::object(Out& out) {
  space();
  if (!take('{')) return false;
  do {
    if (!member(out)) return false;
    space();
  } while (take(','));
  return take('}');
}

bool LineReader::member(Out& out) {
  space();
  const char* start = at_ + 1;
  if (!string(nullptr)) return false;
  const std::string_view key(start, static_cast<size_t>(at_ - 1 - start));
  if (key.find('\\') != key.npos) return false;
  space();
  if (!take(':')) return false;
  space();
  bool taken = false;
  if (!own_key(key, out, taken)) return false;
  return taken || value(1);
}

bool LineReader::own_key(std::string_view key, Out& out, bool& taken) {
  taken = true;
  if (key == keys_.text) {
    if (out.has_text || key == keys_.id) return false;
    out.has_text = true;
    return string(&out.texts);
  }
  if (key == keys_.id) {
    if (out.has_id) return false;
    out.has_id = true;
    return id_value(out.ids);
  }
  taken = false;
  return true;
}

bool LineReader::id_value(std::string& ids) {
  if (at_ < end_ && *at_ == '"') return string(&ids);
  const char* start = at_;
  if (!value(1)) return false;
  const std::string_view found(start, static_cast<size_t>(at_ - start));
  if (found == "-0") return false;
  const bool whole = (found[0] == '-' || (found[0] >= '0' && found[0] <= '9')) &&
                     found.find_first_of(".eE") == found.npos;
  if (whole) ids += found;
  return true;
}

bool LineReader::value(int depth) {
  if (at_ == end_ || depth > kDepth) return false;
  switch (*at_) {
    case '"':
      return string(nullptr);
    case '{':
      ++at_;
      return rest_of_object(depth + 1);
    case '[':
      ++at_;
      return rest_of_array(depth + 1);
    case 't':
      return word("true");
    case 'f':
      return word("false");
    case 'n':
      return word("null");
    default:
      return number();
  }
}

bool LineReader::rest_of_array(int depth) {
  space();
  if (take(']')) return true;
  do {
    space();
    if (!value(depth)) return false;
    space();
  } while (take(','));
  return take(']');
}

bool LineReader::rest_of_object(int depth) {
  space();
  if (take('}')) return true;
  do {
    space();
    if (!string(nullptr)) return false;
    space();
    if (!take(':')) return false;
    space();
    if (!value(depth)) return false;
    space();
  } while (take(','));
  return take('}');
}

bool LineReader::word(std::string_view expected) {
  if (std::string_view(at_, static_cast<size_t>(end_ - at_)).substr(0, expected.size()) != expected)
    return false;
  at_ += expected.size();
  return true;
}

bool LineReader::number() {
  const char* start = at_;
  take('-');
  if (!take('0') && digits() == 0) return false;
  if (take('.') && digits() == 0) return false;
  if (take('e') || take('E')) {
    if (!take('-')) take('+');
    if (digits() == 0) return false;
  }
  return static_cast<size_t>(at_ - start) <= kDigits;
}

size_t LineReader::digits() {
  const char* start = at_;
  while (at_ < end_ && *at_ >= '0' && *at_ <= '9') ++at_;
  return static_cast<size_t>(at_ - start);
}

// A string with its quotes; its content is added to `out` where there is one.
bool LineReader::string(std::string* out) {
  if (!take('"')) return false;
  for (;;) {
    const char* start = at_;
    at_ = scan_(at_, end_);
    while (at_ < end_ && static_cast<unsigned char>(*at_) >= 0x80) {
      if (!multibyte()) return false;
      if (at_ < end_ && static_cast<unsigned char>(*at_) < 0x80) at_ = scan_(at_, end_);
    }
    if (out != nullptr) out->append(start, static_cast<size_t>(at_ - start));
    if (at_ == end_) return false;
    if (*at_ == '"') return ++at_, true;
    if (*at_ != '\\' || !escape(out)) return false;
  }
}

bool LineReader::escape(std::string* out) {
  if (end_ - at_ < 2) return false;
  const char what = at_[1];
  at_ += 2;
  if (what == 'u') return unicode_escape(out);
  constexpr std::string_view names = "\"\\/bfnrt";
  constexpr std::string_view means = "\"\\/\b\f\n\r\t";
  const size_t place = names.find(what);
  if (place == names.npos) return false;
  if (out != nullptr) *out += means[place];
  return true;
}

bool LineReader::unicode_escape(std::string* out) {
  unsigned value = 0;
  if (!hex4(value)) return false;
  if (value >= 0xDC00 && value < 0xE000) return false;
  if (value >= 0xD800 && value < 0xDC00) {
    unsigned low = 0;
    if (!take('\\') || !take('u') || !hex4(low) || low < 0xDC00 || low >= 0xE000) return false;
    value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00);
  }
  if (out != nullptr) append_character(*out, value);
  return true;
}

bool LineReader::hex4(unsigned& value) {
  if (end_ - at_ < 4) return false;
  value = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = *at_;
    const char lower = static_cast<char>(c | 0x20);
    const bool digit = c >= '0' && c <= '9';
    if (!digit && !(lower >= 'a' && lower <= 'f')) return false;
    value = value * 16 + static_cast<unsigned>(digit ? c - '0' : lower - 'a' + 10);
  }
  return true;
}

bool LineReader::multibyte() {
  const int bytes = character_bytes(at_, end_);
  at_ += bytes;
  return bytes != 0;
}

void LineReader::space() {
  while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\r')) ++at_;
}

bool LineReader::take(char expected) {
  if (at_ == end_ || *at_ != expected) return false;
  ++at_;
  return true;
}

bool has_letters(std::string_view text) {
  const char* at = text.data();
  const char* end = at + text.size();
  while (at < end) {
    const int bytes = static_cast<unsigned char>(*at) < 0x80 ? 1 : character_bytes(at, end);
    if (!is_space(character_value(at, bytes))) return true;
    at += bytes;
  }
  return false;
}

}  // namespace mj
