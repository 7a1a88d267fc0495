// Ids of texts that were encoded together, as the sequences of a token file.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mj {

struct Frame {
  std::vector<uint32_t> before;  // ids that begin each text
  std::vector<uint32_t> after;   // ids that end it
  int64_t eod = -1;              // id that ends each document; none when negative
};

template <typename Token>
struct Narrowed {
  std::vector<Token> tokens;
  std::vector<int32_t> lengths;    // [sequences], tokens
  std::vector<int32_t> sequences;  // [documents]; 0: none of its texts has a token
};

// Cuts `ids` at each `separator` into texts; each text with a token becomes a sequence.
//
// ids: of all texts, one after the other, one separator less than texts.
// texts: [documents], how many texts each is made of, at least 1.
// vocab: all other ids are below it.
// Raises invalid_argument when the texts do not add up, an id is too large or a text too long.
template <typename Token>
Narrowed<Token> narrow(std::span<const uint32_t> ids, uint32_t separator,
                       std::span<const int64_t> texts, const Frame& frame, int64_t vocab);

}  // namespace mj
