// What filters count about the lines and characters of a text.
#pragma once

#include <cstdint>
#include <string_view>

#include "filters/characters.h"

namespace mj {

struct LineShapes {
  int64_t lines = 0, bulleted = 0, trailing = 0;
};
// Lines as str.splitlines has them; those that begin with - or a bullet; that end in an ellipsis.
LineShapes line_shapes(std::u32string_view text, const Characters& characters);

struct Repeats {
  int64_t parts = 0, repeated = 0, characters = 0;
};
// Parts between runs of at least `breaks` newlines; those that stood before, and their characters.
Repeats repeats(std::u32string_view text, size_t breaks);

struct LineEnds {
  int64_t lines = 0, ended = 0, brief = 0, repeated = 0, newlines = 0;
};
// Lines between newlines, blank ones left out; those that end in a terminal, those of at most
// `brief` characters, the characters of those that stood before; and all newlines.
LineEnds line_ends(std::u32string_view text, const Characters& characters, int64_t brief);

struct KindCounts {
  int64_t spaces = 0, letters = 0, capitals = 0, digits = 0, punctuation = 0;
};
// How many characters are of which kind; capitals are letters too, and so are combining marks.
KindCounts kind_counts(std::u32string_view text, const Characters& characters);

}  // namespace mj
