// Losses, the optimizer, sums of gradients, experts.
#include <algorithm>
#include <cmath>

#include "cases.h"
#include "kernels/adam.h"
#include "kernels/experts.h"
#include "kernels/gradients.h"
#include "kernels/loss.h"

namespace cases {
namespace {

constexpr int64_t kIgnored = -100;

Numbers<int64_t> targets_of(int64_t rows, int64_t vocab) {
  Numbers<int64_t> targets(static_cast<size_t>(rows), kIgnored);
  for (size_t row = 0; row < targets.size() && vocab > 0; ++row) {
    if (row % 3 != 2) targets[row] = static_cast<int64_t>(row * 7) % vocab;
  }
  return targets;
}

mj::LossRule rule_of(const Case& given, int64_t first, float cap) {
  return {given.rows, given.columns, first, given.columns + 2 * first, kIgnored,
          given.dtype, cap, 0.1f, 1e-3f, given.threads};
}

// The loss of a row of logits, with the smoothing and the square of `rule_of`.
double loss_of(std::vector<double> row, int64_t target, double cap) {
  if (target == kIgnored) return 0;
  double sum = 0, mean = 0;
  for (double& x : row) {
    if (cap > 0) x = cap * std::tanh(x / cap);
    sum += std::exp(x);
    mean += x / static_cast<double>(row.size());
  }
  const double all = std::log(sum), smoothing = 0.1f;
  const double hit = row[static_cast<size_t>(target)];
  return all - (1 - smoothing) * hit - smoothing * mean + 1e-3f * all * all;
}

// Tensors one number off any alignment, of sizes that fit no block.
struct Tensors {
  std::vector<int64_t> sizes;
  std::vector<Numbers<float>> floats;

  std::vector<float*> places() {
    std::vector<float*> found;
    for (auto& numbers : floats) found.push_back(numbers.data() + 1);
    return found;
  }
};

Tensors tensors_of(const Case& given, unsigned seed) {
  Tensors made{{given.columns, 0, 1, given.rows * given.columns}, {}};
  for (const int64_t size : made.sizes) {
    made.floats.push_back(numbers<float>(size + 1, seed++));
    for (float& number : made.floats.back()) number = std::fabs(number);
  }
  return made;
}

// What `adam_step` makes of one parameter, with the rule of the case below.
double stepped(double parameter, double first, double second, double gradient) {
  const double g = 0.5 * gradient;
  first += 0.1 * (g - first);
  second += 0.05 * (g * g - second);
  const double size = std::sqrt(second / (1 - std::pow(0.95, 3))) + 1e-8;
  return (1 - 1e-2 * 0.1) * parameter - 1e-2 / (1 - std::pow(0.9, 3)) * first / size;
}

}  // namespace

Written loss(const Case& given, float cap) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    auto logits = numbers<T>(given.rows * given.columns, 1);
    const auto before = logits;
    const auto targets = targets_of(given.rows, given.columns);
    const auto weights = numbers<float>(given.rows, 2);
    Numbers<float> losses(weights.size());
    mj::loss_whole({rule_of(given, 0, cap), logits.data(), targets.data(), weights.data(),
                    losses.data()});
    Written written;
    append(written, losses);
    append(written, logits);
    for (size_t r = 0; r < targets.size(); ++r) {
      std::vector<double> row;
      const T* const first = before.data() + static_cast<int64_t>(r) * given.columns;
      for (int64_t i = 0; i < given.columns; ++i) row.push_back(mj::to_float(first[i]));
      written.wanted.push_back(loss_of(row, targets[r], cap));
    }
    return written;
  });
}

Written loss_of_a_part(const Case& given) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto rule = rule_of(given, 5, 0);
    auto logits = numbers<T>(given.rows * given.columns, 1);
    const auto targets = targets_of(given.rows, rule.vocab);
    const auto weights = numbers<float>(given.rows, 2);
    const Numbers<float> logsum(weights.size(), 4.0f);
    Numbers<float> parts(4 * weights.size());
    Numbers<T> gradient(logits.size());
    mj::loss_parts({rule, logits.data(), targets.data(), parts.data()});
    mj::loss_gradient({rule, logits.data(), targets.data(), logsum.data(), weights.data(),
                       gradient.data()});
    Written written;
    append(written, parts);
    append(written, gradient);
    for (int64_t r = 0; r < given.rows; ++r) {
      const T* const row = logits.data() + r * given.columns;
      double largest = -INFINITY;
      for (int64_t i = 0; i < given.columns; ++i) {
        largest = std::fmax(largest, mj::to_float(row[i]));
      }
      written.wanted.push_back(largest);
    }
    return written;
  });
}

Written adam(const Case& given) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    Tensors parameters = tensors_of(given, 1), first = tensors_of(given, 5);
    Tensors second = tensors_of(given, 9);
    Written written;
    std::vector<Numbers<T>> gradients, rounded;
    std::vector<void*> gradients_at, rounded_at;
    for (size_t t = 0; t < parameters.sizes.size(); ++t) {
      gradients.push_back(numbers<T>(parameters.sizes[t], 13));
      rounded.emplace_back(gradients.back().size());
      written.wanted.push_back(parameters.floats[t][0]);  // before the first, and left alone
      for (size_t i = 0; i < gradients.back().size(); ++i) {
        written.wanted.push_back(stepped(parameters.floats[t][i + 1], first.floats[t][i + 1],
                                         second.floats[t][i + 1],
                                         mj::to_float(gradients.back()[i])));
      }
    }
    for (auto& part : gradients) gradients_at.push_back(part.data());
    for (auto& part : rounded) rounded_at.push_back(part.data());
    const std::vector<const void*> read(gradients_at.begin(), gradients_at.end());
    const auto p = parameters.places(), m = first.places(), v = second.places();
    mj::adam_step({{1e-2, 0.9, 0.95, 1e-8, 0.1, 3, 0.5}, parameters.sizes, p, m, v, read,
                   given.dtype, rounded_at, given.dtype, given.threads});
    const mj::TensorList list{parameters.sizes, gradients_at, given.dtype, given.threads};
    for (const auto* part : {&parameters, &first, &second}) {
      for (const auto& tensor : part->floats) append(written, tensor);
    }
    written.found.push_back(static_cast<float>(mj::sum_of_squares(list)));
    written.found.push_back(mj::scale_all(list, 0.5f) && mj::all_finite(list) ? 1.0f : 0.0f);
    for (const auto& tensor : rounded) append(written, tensor);
    for (const auto& tensor : gradients) append(written, tensor);
    return written;
  });
}

Written gradient(const Case& given) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t size = given.rows * given.columns;
    const auto gradient = numbers<T>(size, 1);
    auto sum = numbers<float>(size + 1, 2);
    Written written;
    for (size_t i = 0; i < sum.size(); ++i) {
      written.wanted.push_back(i == 0 ? sum[0] : sum[i] + mj::to_float(gradient[i - 1]));
    }
    mj::add_gradient({size, given.dtype, false, given.threads}, gradient.data(), sum.data() + 1);
    append(written, sum);
    mj::add_gradient({size, given.dtype, true, given.threads}, gradient.data(), sum.data() + 1);
    append(written, sum);
    return written;
  });
}

Written experts(const Case& given) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t tokens = given.rows, columns = given.columns, experts = 7, visits = 3;
    const auto places_in_all = static_cast<size_t>(tokens * visits);
    const auto logits = numbers<T>(tokens * experts, 1);
    const auto bias = numbers<float>(experts, 2), dweights = numbers<float>(tokens * visits, 3);
    Numbers<float> weights(places_in_all);
    Numbers<int64_t> best(places_in_all), source(places_in_all), places(places_in_all);
    Numbers<int64_t> chosen(places_in_all);
    const mj::RouterRule rule{tokens, experts, visits, 1, 1, 1, given.dtype, true, true, 1.5f,
                              given.threads};
    mj::router_forward({rule, logits.data(), bias.data(), weights.data(), best.data()});
    Numbers<T> dlogits(logits.size());
    mj::router_backward({rule, logits.data(), dweights.data(), best.data(), dlogits.data()});
    Numbers<uint8_t> goes(logits.size());
    for (size_t visit = 0; visit < best.size(); ++visit) {
      goes[visit / visits * experts + static_cast<size_t>(best[visit])] = 1;
    }
    mj::deal_visits({tokens, experts, visits, goes.data(), source.data(), places.data(),
                     chosen.data()});
    const auto x = numbers<T>(tokens * columns, 4), dy = numbers<T>(tokens * columns, 5);
    const int64_t early = tokens * visits / 2, late = tokens * visits - early;
    Numbers<T> front(static_cast<size_t>(early * columns));
    Numbers<T> behind(static_cast<size_t>(late * columns)), dfront(front), dbehind(behind);
    Numbers<float> of_weights(weights.size());
    Numbers<T> y(x.size());
    const mj::RowsRule rows{tokens, visits, columns, given.dtype, given.threads};
    const mj::Chunks chunks{{front.data(), behind.data()}, {early, late}};
    const mj::Chunks into{{dfront.data(), dbehind.data()}, {early, late}};
    mj::bring_rows({rows, x.data(), source.data(), chunks});
    mj::collect_rows({rows, chunks, places.data(), weights.data(), y.data()});
    mj::collect_rows_backward({rows, dy.data(), chunks, places.data(), weights.data(), into,
                               of_weights.data()});
    Written written;
    append(written, y);
    for (const auto* part : {&dlogits, &dfront, &dbehind}) append(written, *part);
    append(written, of_weights);
    for (size_t i = 0; i < y.size(); ++i) {
      const size_t token = i / static_cast<size_t>(columns);
      double sum = 0;
      for (size_t k = 0; k < visits; ++k) sum += weights[token * visits + k];
      written.wanted.push_back(sum * mj::to_float(x[i]));  // each of its experts gives x back
    }
    return written;
  });
}

}  // namespace cases
