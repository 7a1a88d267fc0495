// Rotary positions, softmax of scores, attention. A case's rows are queries, its columns keys.
#include <algorithm>
#include <cmath>

#include "cases.h"
#include "kernels/attention.h"
#include "kernels/rope.h"
#include "kernels/softmax.h"

namespace cases {
namespace {

// [keys] of exp(score - largest) / sum, 0 from `seen` on.
std::vector<double> weights_of(std::vector<double> scores, int64_t seen) {
  scores.resize(static_cast<size_t>(seen));
  double sum = 0;
  const double largest = *std::max_element(scores.begin(), scores.end());
  for (double& score : scores) sum += score = std::exp(score - largest);
  for (double& score : scores) score /= sum;
  return scores;
}

template <typename T>
double at(const Numbers<T>& numbers, int64_t place) {
  return mj::to_float(numbers[static_cast<size_t>(place)]);
}

}  // namespace

Written rope(const Case& given, bool interleaved) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t heads = 3, columns = given.columns + 1, turned = columns / 2 * 2;
    const auto x = numbers<T>(given.rows * heads * columns, 1);
    const auto cos = numbers<T>(given.rows * turned, 2), sin = numbers<T>(given.rows * turned, 3);
    Numbers<T> y(x.size()), back(x.size());
    const int64_t row_size = heads * columns;
    mj::Rope task{given.rows, 1, heads, columns, turned, {row_size, row_size, columns},
                  given.dtype, interleaved, false, given.threads,
                  x.data(), cos.data(), sin.data(), y.data()};
    mj::rope(task);
    task.inverse = true;
    task.y = back.data();
    mj::rope(task);
    Written written;
    append(written, y);
    append(written, back);
    for (int64_t i = 0; i < given.rows * heads * columns; ++i) {
      const int64_t column = i % columns, row = i / columns / heads * turned, half = turned / 2;
      const bool first = interleaved ? column % 2 == 0 : column < half;
      const int64_t apart = (interleaved ? 1 : half) * (first ? 1 : -1);
      const double kept = column < turned ? at(x, i) * at(cos, row + column) : at(x, i);
      const double other = column < turned ? at(x, i + apart) * at(sin, row + column) : 0;
      written.wanted.push_back(first ? kept - other : kept + other);
    }
    return written;
  });
}

Written softmax(const Case& given, bool causal) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t queries = given.rows, keys = given.columns + (causal ? queries : 0), heads = 2;
    const mj::SoftmaxRule rule{{1, heads, queries, keys}, {0, 0, 0}, nullptr,       causal, 0.7f, 0,
                               given.dtype,               given.threads};
    const int64_t size = heads * queries * keys;
    const auto x = numbers<T>(size, 1), dw = numbers<T>(size, 2);
    Numbers<T> w(x.size()), dx(x.size());
    mj::softmax_forward(rule, x.data(), w.data());
    mj::softmax_backward(rule, dw.data(), x.data(), w.data(), dx.data());
    Written written;
    append(written, w);
    append(written, dx);
    for (int64_t row = 0; row < heads * queries; ++row) {
      std::vector<double> scores;
      for (int64_t key = 0; key < keys; ++key) scores.push_back(0.7f * at(x, row * keys + key));
      scores = weights_of(scores, causal ? row % queries + keys - queries + 1 : keys);
      scores.resize(static_cast<size_t>(keys));
      written.wanted.insert(written.wanted.end(), scores.begin(), scores.end());
    }
    return written;
  });
}

Written attention(const Case& given) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t queries = given.rows, keys = queries + given.columns % 50, heads = 4, groups = 2;
    const int64_t columns = 8 + given.columns % 2 * 16;
    const int64_t row = heads * columns, few = groups * columns;
    const mj::Attention task{queries, keys, 1, heads, groups, columns, {row, row, columns},
                             {few, few, columns}, {few, few, columns}, nullptr, 0.3f,
                             given.dtype, given.threads};
    const auto q = numbers<T>(queries * row, 1), dout = numbers<T>(queries * row, 2);
    const auto k = numbers<T>(keys * few, 3), v = numbers<T>(keys * few, 4);
    Numbers<T> out(q.size()), dq(q.size()), dk(k.size()), dv(v.size());
    Numbers<float> sums(static_cast<size_t>(heads * queries));
    mj::attention_forward(task, q.data(), k.data(), v.data(), out.data(), sums.data());
    const mj::AttentionInputs from{q.data(),   k.data(),    v.data(),
                                   out.data(), dout.data(), sums.data()};
    mj::attention_backward(task, from, dq.data(), dk.data(), dv.data());
    Written written;
    for (const auto* part : {&out, &dq, &dk, &dv}) append(written, *part);
    append(written, sums);
    for (int64_t i = 0; i < queries * row; ++i) {
      const int64_t query = i / row, head = i % row / columns, column = i % columns;
      const int64_t side = head / (heads / groups) * columns, first = query * row + head * columns;
      std::vector<double> scores;
      for (int64_t key = 0; key < query + keys - queries + 1; ++key) {
        double score = 0;
        for (int64_t d = 0; d < columns; ++d) {
          score += at(q, first + d) * at(k, key * few + side + d);
        }
        scores.push_back(0.3f * score);
      }
      scores = weights_of(scores, static_cast<int64_t>(scores.size()));
      double sum = 0;
      for (size_t key = 0; key < scores.size(); ++key) {
        sum += scores[key] * at(v, static_cast<int64_t>(key) * few + side + column);
      }
      written.wanted.push_back(sum);
    }
    return written;
  });
}

}  // namespace cases
