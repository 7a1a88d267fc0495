// Tokens of a router: see every_machine.h.

constexpr float kNowhere = -std::numeric_limits<float>::infinity();
constexpr float kLeast = -3.0e38f;  // a NaN comes last, but is there

// The scores of one token, to `to`, a whole number of vectors; what is beyond is kNowhere.
template <typename T>
MJ_INLINE void score(const RouterRule& rule, const T* logits, float* to) {
  const int64_t padded = (rule.experts + kLanes - 1) / kLanes * kLanes;
  std::fill(to + rule.experts, to + padded, kNowhere);
  if (rule.sigmoid) {
    each_vector(rule.experts, MJ_EACH(int64_t i, auto lanes) {
      lanes.put(to + i, 1.0f / (1.0f + exp(-lanes.get(logits + i))));
    });
    return;
  }
  each_vector(rule.experts, MJ_EACH(int64_t i, auto lanes) {
    lanes.put(to + i, lanes.get(logits + i));
  });
  Floats most = all(kNowhere);
  for (int64_t i = 0; i < padded; i += kLanes) most = at_least(load(to + i), most);
  const float largest = largest_of(most);
  float sum[1];
  add_up(rule.experts, sum, MJ_EACH(int64_t i, auto lanes, Floats* sums) {
    const Floats power = exp(lanes.get(to + i) - largest);
    lanes.put(to + i, power);
    sums[0] += lanes.keep(power);
  });
  each_vector(rule.experts, MJ_EACH(int64_t i, auto lanes) {
    lanes.put(to + i, lanes.get(to + i) / sum[0]);
  });
}

// The first of the largest of `count` numbers, which is then kNowhere. Numbers come in whole vectors.
MJ_INLINE int64_t take_best(float* numbers, int64_t padded) {
  Floats most = load(numbers);
  for (int64_t i = kLanes; i < padded; i += kLanes) most = at_least(load(numbers + i), most);
  const float best = largest_of(most);
  int64_t place = 0;
  while (numbers[place] != best) ++place;
  numbers[place] = kNowhere;
  return place;
}

// Leave the choices of the best groups alone; `worth` has room for all groups, in whole vectors.
MJ_INLINE void keep_groups(const RouterRule& rule, float* choices, float* worth) {
  const int64_t size = rule.experts / rule.groups;
  const int64_t padded = (rule.groups + kLanes - 1) / kLanes * kLanes;
  std::fill(worth, worth + padded, kNowhere);
  for (int64_t group = 0; group < rule.groups; ++group) {
    const float* const own = choices + group * size;
    float first = kNowhere, second = kNowhere;
    for (int64_t i = 0; i < size; ++i) {
      const bool more = own[i] > first;
      second = more ? first : std::max(second, own[i]);
      first = more ? own[i] : first;
    }
    worth[group] = std::max(rule.judges == 1 ? first : first + second, kLeast);
  }
  for (int64_t n = 0; n < rule.groups_chosen; ++n) take_best(worth, padded);
  for (int64_t group = 0; group < rule.groups; ++group) {
    if (worth[group] == kNowhere) continue;
    std::fill_n(choices + group * size, size, kNowhere);
  }
}

// Room for the numbers of a token, in whole vectors.
struct TokenRoom {
  int64_t padded;
  std::unique_ptr<float[]> scores, choices, worth;

  explicit TokenRoom(int64_t experts)
      : padded((experts + kLanes - 1) / kLanes * kLanes),
        scores(new float[static_cast<size_t>(padded)]),
        choices(new float[static_cast<size_t>(padded)]),
        worth(new float[static_cast<size_t>(padded)]) {}
};

template <typename T>
void choose_tokens(const RouterForward& task, Stretch tokens) {
  const RouterRule& rule = task.rule;
  const TokenRoom room(rule.experts);
  float *const scores = room.scores.get(), *const choices = room.choices.get();
  for (int64_t token = tokens.first; token < tokens.last; ++token) {
    score(rule, static_cast<const T*>(task.logits) + token * rule.experts, scores);
    std::fill(choices + rule.experts, choices + room.padded, kNowhere);
    each_vector(rule.experts, MJ_EACH(int64_t i, auto lanes) {
      Floats choice = lanes.get(scores + i);
      if (task.bias != nullptr) choice += lanes.get(task.bias + i);
      lanes.put(choices + i, choice > kLeast ? choice : all(kLeast));
    });
    if (rule.groups > 1) keep_groups(rule, choices, room.worth.get());
    float* const weights = task.weights + token * rule.visits;
    int64_t* const chosen = task.chosen + token * rule.visits;
    float sum = 0;
    for (int64_t k = 0; k < rule.visits; ++k) {
      chosen[k] = take_best(choices, room.padded);
      sum += scores[chosen[k]];
    }
    const float scale = rule.normalized ? rule.scale / (sum + 1e-20f) : rule.scale;
    for (int64_t k = 0; k < rule.visits; ++k) weights[k] = scores[chosen[k]] * scale;
  }
}

// ds_k = scale dweight_k, or scale (dweight_k - sum_j dweight_j s_j / S) / S where normalized, S the
// sum of the chosen s + 1e-20; dlogit = s (ds - sum_j ds_j s_j), or ds s (1 - s) of a logistic s.
template <typename T>
void slope_tokens(const RouterBackward& task, Stretch tokens) {
  const RouterRule& rule = task.rule;
  const TokenRoom room(rule.experts);
  float *const scores = room.scores.get(), *const slopes = room.choices.get();
  for (int64_t token = tokens.first; token < tokens.last; ++token) {
    score(rule, static_cast<const T*>(task.logits) + token * rule.experts, scores);
    const int64_t* const chosen = task.chosen + token * rule.visits;
    const float* const dweights = task.dweights + token * rule.visits;
    float sum = 1e-20f, product = 0, inner = 0;
    for (int64_t k = 0; k < rule.visits; ++k) {
      sum += scores[chosen[k]];
      product += dweights[k] * scores[chosen[k]];
    }
    std::fill_n(slopes, room.padded, 0.0f);
    for (int64_t k = 0; k < rule.visits; ++k) {
      const float apart = rule.normalized ? (dweights[k] - product / sum) / sum : dweights[k];
      slopes[chosen[k]] = apart * rule.scale;
      inner += slopes[chosen[k]] * scores[chosen[k]];
    }
    T* const to = static_cast<T*>(task.dlogits) + token * rule.experts;
    each_vector(rule.experts, MJ_EACH(int64_t i, auto lanes) {
      const Floats own = lanes.get(scores + i), slope = lanes.get(slopes + i);
      lanes.put(to + i, own * (rule.sigmoid ? slope * (1.0f - own) : slope - inner));
    });
  }
}

void choose_expert_rows(const RouterForward& task, Stretch tokens) {
  with_dtype(task.rule.dtype, [&](auto* type) {
    choose_tokens<std::remove_pointer_t<decltype(type)>>(task, tokens);
  });
}

void slope_expert_rows(const RouterBackward& task, Stretch tokens) {
  with_dtype(task.rule.dtype, [&](auto* type) {
    slope_tokens<std::remove_pointer_t<decltype(type)>>(task, tokens);
  });
}
