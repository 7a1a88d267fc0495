#include "kernels/experts.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "check.h"
#include "kernels/dtype.h"
#include "kernels/pool.h"

namespace mj {
namespace {

// Where the row of each place begins.
class RowTable {
 public:
  RowTable(const Chunks& chunks, int64_t row_bytes) {
    for (size_t n = 0; n < chunks.tensors.size(); ++n) {
      auto* const first = static_cast<char*>(chunks.tensors[n]);
      for (int64_t row = 0; row < chunks.rows[n]; ++row) rows_.push_back(first + row * row_bytes);
    }
  }

  int64_t count() const { return static_cast<int64_t>(rows_.size()); }

  template <typename T>
  T* row(int64_t place) const {
    return reinterpret_cast<T*>(rows_[static_cast<size_t>(place)]);
  }

 private:
  std::vector<char*> rows_;
};

}  // namespace
}  // namespace mj

#define MJ_CODE "kernels/experts_lanes.h"
#include "kernels/every_machine.h"

namespace mj {
namespace {

constexpr int64_t kPiece = 1 << 15;  // numbers that are worth a thread

int64_t bytes_of(int dtype) {
  return with_dtype(dtype, [](auto* type) { return static_cast<int64_t>(sizeof(*type)); });
}

void check(const RowsRule& rule) {
  const auto least = std::min({rule.tokens, rule.visits, rule.columns});
  MJ_CHECK(least >= 0, "sizes must not be negative, got ", least);
  MJ_CHECK(rule.threads >= 1, "threads must be at least 1, got ", rule.threads);
}

void check_below(const int64_t* numbers, int64_t count, int64_t bound, const char* name) {
  for (int64_t n = 0; n < count; ++n) {
    MJ_CHECK(numbers[n] >= 0 && numbers[n] < bound, name, " must be below ", bound, ", got ",
             numbers[n]);
  }
}

void check_rows(const RowsRule& rule, int64_t rows) {
  MJ_CHECK(rows == rule.tokens * rule.visits, "chunks must have ", rule.tokens * rule.visits,
           " rows, got ", rows);
}

void check_each_once(const int64_t* places, int64_t count) {
  check_below(places, count, count, "places");
  std::vector<bool> seen(static_cast<size_t>(count));
  for (int64_t n = 0; n < count; ++n) {
    MJ_CHECK(!seen[static_cast<size_t>(places[n])], "places has ", places[n], " twice");
    seen[static_cast<size_t>(places[n])] = true;
  }
}

Pieces pieces_of(const RowsRule& rule, int64_t items, int64_t rows_each) {
  const int64_t each = std::max<int64_t>(1, rows_each * rule.columns);
  return {items, std::max<int64_t>(1, kPiece / each)};
}

}  // namespace

void deal_visits(const Deal& task) {
  std::vector<int64_t> next(static_cast<size_t>(task.experts) + 1, 0);
  for (int64_t token = 0; token < task.tokens; ++token) {
    const uint8_t* const goes = task.goes + token * task.experts;
    int64_t found = 0;
    for (int64_t expert = 0; expert < task.experts; ++expert) {
      if (goes[expert] == 0) continue;
      if (found < task.visits) task.chosen[token * task.visits + found] = expert;
      ++found;
      ++next[static_cast<size_t>(expert) + 1];
    }
    MJ_CHECK(found == task.visits, "token ", token, " goes to ", found, " experts, not ",
             task.visits);
  }
  for (size_t expert = 1; expert < next.size(); ++expert) next[expert] += next[expert - 1];
  for (int64_t visit = 0; visit < task.tokens * task.visits; ++visit) {
    const int64_t place = next[static_cast<size_t>(task.chosen[visit])]++;
    task.places[visit] = place;
    task.source[place] = visit / task.visits;
  }
}

void bring_rows(const BringRows& task) {
  check(task.rule);
  const int64_t bytes = task.rule.columns * bytes_of(task.rule.dtype);
  const RowTable to(task.to, bytes);
  check_rows(task.rule, to.count());
  check_below(task.source, to.count(), task.rule.tokens, "source");
  const Pieces pieces = pieces_of(task.rule, to.count(), 1);
  each_piece(task.rule.threads, pieces.count(), [&](int64_t piece) {
    for (int64_t place = pieces[piece].first; place < pieces[piece].last; ++place) {
      const auto* const from = static_cast<const char*>(task.x) + task.source[place] * bytes;
      std::memcpy(to.row<char>(place), from, static_cast<size_t>(bytes));
    }
  });
}

void collect_rows(const CollectRows& task) {
  check(task.rule);
  const RowTable from(task.from, task.rule.columns * bytes_of(task.rule.dtype));
  check_rows(task.rule, from.count());
  check_below(task.places, from.count(), from.count(), "places");
  const auto tokens = MJ_CHOSEN(collect_tokens);
  const Pieces pieces = pieces_of(task.rule, task.rule.tokens, task.rule.visits);
  each_piece(task.rule.threads, pieces.count(),
             [&](int64_t piece) { tokens(task, from, pieces[piece]); });
}

void collect_rows_backward(const CollectBackward& task) {
  check(task.rule);
  const int64_t bytes = task.rule.columns * bytes_of(task.rule.dtype);
  const RowTable from(task.from, bytes), to(task.to, bytes);
  check_rows(task.rule, to.count());
  check_each_once(task.places, to.count());
  MJ_CHECK(task.dweights == nullptr || from.count() == to.count(), "x must have ", to.count(),
           " rows, got ", from.count());
  const auto tokens = MJ_CHOSEN(spread_tokens);
  const Pieces pieces = pieces_of(task.rule, task.rule.tokens, task.rule.visits);
  each_piece(task.rule.threads, pieces.count(),
             [&](int64_t piece) { tokens(task, from, to, pieces[piece]); });
}

}  // namespace mj
