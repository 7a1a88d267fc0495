// Lines of JSON on every width of vectors; names; ids cut into sequences.
#include "exact.h"
#include "lines/block.h"
#include "lines/json.h"
#include "lines/names.h"
#include "lines/narrow.h"
#include "lines/scan.h"

namespace {

std::vector<mj::Scan> scans() {
  std::vector<mj::Scan> found{mj::scan_of(mj::Width::plain)};
  if (mj::fastest_width() != mj::Width::plain) found.push_back(mj::scan_of(mj::Width::avx2));
  if (mj::fastest_width() == mj::Width::avx512) found.push_back(mj::scan_of(mj::Width::avx512));
  return found;
}

const char* stop_of(std::string_view text) {
  const char* at = text.data();
  for (; at < text.data() + text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(*at);
    if (byte == '"' || byte == '\\' || byte < 0x20 || byte >= 0x80) break;
  }
  return at;
}

void compare(std::string_view text) {
  const std::string own(text);
  const exact::Text lines("{\"id\": 7, \"text\": \"" + own + "\"}\n" + own);
  for (const auto scan : scans()) {
    const char* const stop = scan(text.data(), text.data() + text.size());
    exact::check(stop == stop_of(text), "a scan differs", text);
    for (const std::string_view block : {text, std::string_view(lines)}) {
      const auto found = mj::extract(block, {"text", "id"}, "|", 1 << 20, scan);
      exact::check(found.sure.size() == found.line_ends.size(), "lines differ", text);
      size_t sure = 0;
      for (const auto each : found.sure) sure += each;
      exact::check(sure == found.text_sizes.size(), "texts differ", text);
    }
    const auto found = mj::extract(lines, {"text", "id"}, "|", 1 << 20, scan);
    if (stop_of(text) == text.data() + text.size() && mj::has_letters(text)) {
      exact::check(found.texts == text && found.ids == "7", "a plain text differs", text);
    }
  }
}

}  // namespace

int main() {
  exact::each_hostile(compare);
  const std::vector<int64_t> sizes{1, 0, 2}, lines{5};
  const auto named = mj::name_documents(exact::Text("abc"), sizes, lines, exact::Text("f"));
  exact::check(named.letters == "af:5bc", "names differ");
  const std::vector<uint32_t> ids{5, 6, 9, 9, 7};
  const std::vector<int64_t> texts{2, 1};
  const auto cut = mj::narrow<uint16_t>(ids, 9, texts, {{1}, {2}, 3}, 8);
  exact::check(cut.tokens == std::vector<uint16_t>{1, 5, 6, 2, 1, 2, 3, 1, 7, 2, 3},
               "tokens differ");
  return exact::faults == 0 ? 0 : 1;
}
