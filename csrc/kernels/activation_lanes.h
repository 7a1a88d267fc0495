// Rows of activations: see every_machine.h. A function gives f(a), and f'(a) where it is wanted.

struct Silu {
  // s = 1 / (1 + e^-a): f = a s, f' = s + a s (1 - s).
  template <bool Slope>
  MJ_INLINE static Floats value(Floats a, [[maybe_unused]] Floats* slope) {
    const Floats s = 1.0f / (1.0f + exp(-a));
    const Floats f = a * s;
    if constexpr (Slope) *slope = fma(f, 1.0f - s, s);
    return f;
  }
};

struct GeluTanh {
  // 0.5 (1 + tanh u) = 1 / (1 + e^-2u) = s, with 2 u = 2 sqrt(2 / pi) (a + 0.044715 a^3):
  // f = a s, f' = s + a s (1 - s) 2 u'.
  template <bool Slope>
  MJ_INLINE static Floats value(Floats a, [[maybe_unused]] Floats* slope) {
    constexpr float root = 1.5957691216057308f, cubic = root * 0.044715f;
    const Floats square = at_most(a * a, all(1e4f));  // far out s is 0 or 1, whatever the power
    const Floats s = 1.0f / (1.0f + exp(-a * fma(square, all(cubic), all(root))));
    const Floats f = a * s;
    if constexpr (Slope) {
      const Floats steep = fma(square, all(3 * cubic), all(root));
      *slope = fma(f * (1.0f - s), steep, s);
    }
    return f;
  }
};

struct Gelu {
  // Phi(a) = erfc(-a / sqrt 2) / 2: f = a Phi, f' = Phi + a e^(-a^2 / 2) / sqrt(2 pi).
  // For z >= 0 erfc(z) = e^(-z^2) t P(t), t = 1 / (1 + 0.35 z); P, interpolated at Chebyshev's
  // points for z <= 10, has a relative error of 2.1e-8: small values stay right far out.
  template <bool Slope>
  MJ_INLINE static Floats value(Floats a, [[maybe_unused]] Floats* slope) {
    constexpr float half_root = 0.70710678118654752f, density = 0.39894228040143268f;
    const Floats size = a < 0 ? -a : a;
    const Floats fall = exp(a * a * -0.5f);
    const Floats t = 1.0f / fma(size, all(0.35f * half_root), all(1.0f));
    Floats p = fma(t, all(0x1.26f02cp-5f), all(-0x1.2ae202p-3f));
    p = fma(p, t, all(0x1.353f88p-3f));
    p = fma(p, t, all(0x1.a37a04p-7f));
    p = fma(p, t, all(0x1.b5a73cp-5f));
    p = fma(p, t, all(0x1.4fed22p-3f));
    p = fma(p, t, all(0x1.28ecaap-3f));
    p = fma(p, t, all(0x1.838b02p-3f));
    p = fma(p, t, all(0x1.93698p-3f));
    p = fma(p, t, all(0x1.9476b2p-3f));
    const Floats tail = 0.5f * fall * t * p;
    const Floats share = a < 0 ? tail : 1.0f - tail;
    if constexpr (Slope) *slope = fma(a * density, fall, share);
    return a * share;
  }
};

// One row of x, its bias added.
template <typename T>
struct BiasedRow {
  const T* x;
  const T* bias;

  template <typename Lanes>
  MJ_INLINE Floats get(Lanes lanes, int64_t i) const {
    const Floats value = lanes.get(x + i);
    return bias == nullptr ? value : value + lanes.get(bias + i);
  }
};

template <typename T, typename F, bool Gated>
void activate_rows(const ActivationForward& task, Stretch rows) {
  const int64_t columns = task.rule.columns, width = Gated ? 2 * columns : columns;
  const bool past = streams(static_cast<const T*>(task.y), task.rule.rows, columns);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const BiasedRow<T> from{static_cast<const T*>(task.x) + row * width,
                            static_cast<const T*>(task.bias)};
    T* const y = static_cast<T*>(task.y) + row * columns;
    each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
      if (past) {
        ahead(from.x + i + kAhead);
        if constexpr (Gated) ahead(from.x + columns + i + kAhead);
      }
      Floats found = F::template value<false>(from.get(lanes, i), nullptr);
      if constexpr (Gated) found *= from.get(lanes, columns + i);
      put(past, lanes, y + i, found);
    });
  }
  if (past) drained();
}

template <typename T, typename F, bool Gated>
void slope_rows(const ActivationBackward& task, Stretch rows, float* dbias) {
  const int64_t columns = task.rule.columns, width = Gated ? 2 * columns : columns;
  const bool past = streams(static_cast<const T*>(task.dx), task.rule.rows, columns);
  for (int64_t row = rows.first; row < rows.last; ++row) {
    const BiasedRow<T> from{static_cast<const T*>(task.x) + row * width,
                            static_cast<const T*>(task.bias)};
    const T* const dy = static_cast<const T*>(task.dy) + row * columns;
    T* const dx = static_cast<T*>(task.dx) + row * width;
    each_vector(columns, MJ_EACH(int64_t i, auto lanes) {
      if (past) {
        ahead(dy + i + kAhead);
        ahead(from.x + i + kAhead);
        if constexpr (Gated) ahead(from.x + columns + i + kAhead);
      }
      const Floats up = lanes.get(dy + i);
      Floats slope;
      const Floats found = F::template value<true>(from.get(lanes, i), &slope);
      Floats of_gate = up * slope;
      if constexpr (Gated) {
        const Floats of_value = up * found;
        of_gate *= from.get(lanes, columns + i);
        put(past, lanes, dx + columns + i, of_value);
        if (dbias != nullptr) {
          lanes.put(dbias + columns + i, lanes.get(dbias + columns + i) + of_value);
        }
      }
      put(past, lanes, dx + i, of_gate);
      if (dbias != nullptr) lanes.put(dbias + i, lanes.get(dbias + i) + of_gate);
    });
  }
  if (past) drained();
}

// work(T, F, gated) with null pointers and an integral constant for what the rule says.
template <typename Work>
void with_rule(const ActivationRule& rule, const Work& work) {
  with_dtype(rule.dtype, [&](auto* type) {
    const auto with_function = [&](auto* function) {
      rule.gated ? work(type, function, std::true_type{}) : work(type, function, std::false_type{});
    };
    if (rule.function == Activation::silu) return with_function(static_cast<Silu*>(nullptr));
    if (rule.function == Activation::gelu) return with_function(static_cast<Gelu*>(nullptr));
    with_function(static_cast<GeluTanh*>(nullptr));
  });
}

void activation_forward_rows(const ActivationForward& task, Stretch rows) {
  with_rule(task.rule, [&](auto* type, auto* function, auto gated) {
    using T = std::remove_pointer_t<decltype(type)>;
    using F = std::remove_pointer_t<decltype(function)>;
    activate_rows<T, F, gated.value>(task, rows);
  });
}

// dbias: fp32 [F or 2 F], what these rows add up to; or null.
void activation_backward_rows(const ActivationBackward& task, Stretch rows, float* dbias) {
  const int64_t width = (task.rule.gated ? 2 : 1) * task.rule.columns;
  if (dbias != nullptr) std::fill_n(dbias, width, 0.0f);
  with_rule(task.rule, [&](auto* type, auto* function, auto gated) {
    using T = std::remove_pointer_t<decltype(type)>;
    using F = std::remove_pointer_t<decltype(function)>;
    slope_rows<T, F, gated.value>(task, rows, dbias);
  });
}
