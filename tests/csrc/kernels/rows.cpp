// Norms, activations and the residual stream.
#include <cmath>

#include "cases.h"
#include "kernels/activation.h"
#include "kernels/norm.h"
#include "kernels/residual.h"

namespace cases {
namespace {

double value_of(mj::Activation function, double x) {
  if (function == mj::Activation::silu) return x / (1 + std::exp(-x));
  if (function == mj::Activation::gelu) return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
  return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

// [columns] of a row, normalised.
void normalise(std::vector<double>& row, bool centred) {
  double mean = 0, squares = 0;
  for (const double x : row) mean += centred ? x / static_cast<double>(row.size()) : 0;
  for (double& x : row) x -= mean;
  for (const double x : row) squares += x * x / static_cast<double>(row.size());
  for (double& x : row) x /= std::sqrt(squares + 1e-5);
}

template <typename T>
double at(const Numbers<T>& numbers, int64_t place) {
  return mj::to_float(numbers[static_cast<size_t>(place)]);
}

}  // namespace

Written norm(const Case& given, bool centred) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto [rows, columns, dtype, threads] = given;
    const mj::NormRule rule{rows, columns, dtype, 1e-5f, true, centred, threads};
    const auto x = numbers<T>(rows * columns, 1), residual = numbers<T>(rows * columns, 2);
    const auto dy = numbers<T>(rows * columns, 3);
    const auto weight = numbers<T>(columns, 4), bias = numbers<T>(columns, 5);
    Numbers<T> y(x.size()), sum(x.size()), dx(x.size());
    Numbers<T> dweight(weight.size()), dbias(weight.size());
    Numbers<float> mean(static_cast<size_t>(rows)), scale(mean.size());
    float* const means = centred ? mean.data() : nullptr;
    mj::norm_forward({rule, x.data(), residual.data(), weight.data(), bias.data(), y.data(),
                      sum.data(), means, scale.data()});
    mj::norm_backward({rule, dy.data(), sum.data(), weight.data(), means, scale.data(),
                       residual.data(), dx.data(), dweight.data(), dbias.data()});
    Written written;
    for (const auto* part : {&y, &sum, &dx, &dweight, &dbias}) append(written, *part);
    append(written, scale);
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<double> row;
      for (int64_t i = 0; i < columns; ++i) row.push_back(at(sum, r * columns + i));
      normalise(row, centred);
      for (int64_t i = 0; i < columns; ++i) {
        written.wanted.push_back(row[static_cast<size_t>(i)] * (at(weight, i) + 1) + at(bias, i));
      }
    }
    return written;
  });
}

Written activation(const Case& given, bool gated) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const auto [rows, columns, dtype, threads] = given;
    const int64_t width = columns * (gated ? 2 : 1);
    const auto x = numbers<T>(rows * width, 1), bias = numbers<T>(width, 2);
    const auto dy = numbers<T>(rows * columns, 3);
    Numbers<T> y(dy.size()), dx(x.size()), dbias(bias.size());
    Written written, rest;
    for (const auto function :
         {mj::Activation::silu, mj::Activation::gelu, mj::Activation::gelu_tanh}) {
      const mj::ActivationRule rule{rows, columns, dtype, function, gated, threads};
      mj::activation_forward({rule, x.data(), bias.data(), y.data()});
      mj::activation_backward({rule, dy.data(), x.data(), bias.data(), dx.data(), dbias.data()});
      append(written, y);
      append(rest, dx);
      append(rest, dbias);
      for (int64_t i = 0; i < rows * columns; ++i) {
        const int64_t column = i % columns, place = i / columns * width + column;
        const double gate = value_of(function, at(x, place) + at(bias, column));
        const double value = gated ? at(x, place + columns) + at(bias, column + columns) : 1;
        written.wanted.push_back(gate * value);
      }
    }
    written.found.insert(written.found.end(), rest.found.begin(), rest.found.end());
    return written;
  });
}

Written residual(const Case& given) {
  return of_dtype(given, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const mj::ResidualRule rule{given.rows, given.columns, given.dtype, given.threads};
    const auto x = numbers<T>(given.rows * given.columns, 1), bias = numbers<T>(given.columns, 2);
    const auto stream = numbers<T>(given.rows * given.columns, 3);
    Numbers<T> y(x.size()), dbias(bias.size());
    mj::add_residual({rule, x.data(), bias.data(), stream.data(), y.data()});
    mj::bias_gradient(rule, x.data(), dbias.data());
    Written written;
    append(written, y);
    append(written, dbias);
    for (int64_t i = 0; i < given.rows * given.columns; ++i) {
      written.wanted.push_back(at(x, i) + at(bias, i % given.columns) + at(stream, i));
    }
    written.wanted.resize(written.found.size());
    for (int64_t i = 0; i < given.rows * given.columns; ++i) {
      written.wanted[y.size() + static_cast<size_t>(i % given.columns)] += at(x, i);
    }
    return written;
  });
}

}  // namespace cases
