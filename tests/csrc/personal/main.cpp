// Traces of personal data: within the text, and found where they surely are.
#include "exact.h"
#include "personal/traces.h"

int main() {
  exact::each_hostile([](std::string_view text) {
    for (const auto& [kinds, begin, end] : mj::find_traces(text)) {
      const auto size = static_cast<int64_t>(text.size());
      exact::check(kinds != 0 && 0 <= begin && begin < end && end <= size, "no trace", text);
    }
  });
  for (const auto& [text, kind] : {std::pair{"write to ann@example.org", mj::AT_SIGN},
                                   {"from 192.168.10.254", mj::DOTTED},
                                   {"to fe80::1:2:3", mj::COLONS},
                                   {"-----BEGIN KEY", mj::KEY_BLOCK}}) {
    int64_t kinds = 0;
    for (const auto& trace : mj::find_traces(exact::Text(text))) kinds |= trace.kinds;
    exact::check((kinds & kind) != 0, "a trace was passed over", text);
  }
  return exact::faults == 0 ? 0 : 1;
}
