// Runs of plain bytes in text: what JSON strings are mostly made of.
#pragma once

#include <cstddef>

namespace mj {

// How far a scan goes at a time.  All give the same result; `fastest` is what this machine can do.
enum class Width { plain, avx2, avx512 };

Width fastest_width();

// The first byte of [at, end) that is a quote, a backslash, a control character or not ASCII; else
// end.
using Scan = const char* (*)(const char* at, const char* end);

// Raises invalid_argument when this machine cannot.
Scan scan_of(Width width);

}  // namespace mj
