// One line of JSON: the text and the id of the object in it, when all of it is surely valid.
//
// What is sure is narrower than JSON, so that whoever judges the rest slowly agrees in every case:
// valid UTF-8, no half of a surrogate pair, no deep nesting, no long number, no escape in a key of
// the object, no key of ours twice, no NaN.
#pragma once

#include <string>
#include <string_view>

#include "lines/scan.h"

namespace mj {

struct Keys {
  std::string_view text;
  std::string_view id;
};

// Reads lines one after the other, and adds what it finds to two buffers.
class LineReader {
 public:
  LineReader(Keys keys, Scan scan) : keys_(keys), scan_(scan) {}

  // Whether `line` is surely an object with a text that is not empty; then the text is at the end
  // of `texts` and the id (a string, or a whole number as it is written; else nothing) at that of
  // `ids`. If not, both are as they were.
  bool read(std::string_view line, std::string& texts, std::string& ids);

 private:
  struct Out;
  bool object(Out& out);
  bool member(Out& out);
  bool own_key(std::string_view key, Out& out, bool& taken);
  bool id_value(std::string& ids);
  bool value(int depth);
  bool rest_of_array(int depth);
  bool rest_of_object(int depth);
  bool word(std::string_view expected);
  bool number();
  size_t digits();
  bool string(std::string* out);
  bool escape(std::string* out);
  bool unicode_escape(std::string* out);
  bool hex4(unsigned& value);
  bool multibyte();
  void space();
  bool take(char expected);

  Keys keys_;
  Scan scan_;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
};

// Whether UTF-8 text holds a character that is no white space, as Python's str.strip sees it.
bool has_letters(std::string_view text);

}  // namespace mj
