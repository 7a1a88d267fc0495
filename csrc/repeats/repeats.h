// Stretches of documents that stand earlier as well.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mj {

struct Stretch {
  std::int64_t start;  // bytes
  std::int64_t end;
};

// The bytes of `text` that lie in a window of `length` bytes that stands earlier too: what can be cut
// out. Windows lie within one document; stretches are in order and apart.
//
// `ends` [documents]: where each document ends, rising, the last at text.size().
// Takes some 6 bytes a byte of text. Independent of the number of threads.
std::vector<Stretch> repeated_stretches(std::span<const std::uint8_t> text,
                                        std::span<const std::int64_t> ends, std::int64_t length,
                                        int threads);

}  // namespace mj
