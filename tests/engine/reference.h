// What a tiny model computes, in fp64 and slow loops, written from the formulas of ARCHITECTURE.md
// and model_config.h without a line of the engine. Ternary products are sums of integers, so they
// are exact here and there. A rounding to int8 that lies near a half could fall either way in fp32:
// `tie_distance` tells how near the nearest one was, so that a test can pick a seed without such.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "base/error.h"
#include "engine/model_weights.h"
#include "tests/engine/tiny_model.h"

namespace tern::testing {

struct ReferenceRun {
  std::vector<double> logits;     // [T, V]
  std::vector<double> magnitude;  // [T, V]: sum |h||w| of each logit, what its rounding scales with
  double tie_distance = std::numeric_limits<double>::infinity();  // In int8 steps
};

class Reference {
 public:
  Reference(const TinyModel& model, engine::ActivationRule rule) : model_(model), rule_(rule) {}

  ReferenceRun Run(std::span<const int32_t> tokens) {
    const ModelConfig& c = model_.config;
    Rows x;
    const std::vector<float>& table = Floats("model.embed_tokens");
    for (const int32_t token : tokens)
      x.emplace_back(table.begin() + token * c.hidden_size,
                     table.begin() + (token + 1) * c.hidden_size);
    for (int64_t layer = 0; layer < c.num_layers; ++layer) {
      const std::string prefix = StrCat("model.layers.", layer, ".");
      const bool pre = c.HasPreNorms();
      Add(&x, Attention(prefix, pre ? Norm(x, prefix + "input_layernorm") : x, c.WindowOf(layer)));
      Add(&x, FeedForward(prefix, pre ? Norm(x, prefix + "post_attention_layernorm") : x));
    }
    const std::vector<float>& head = Floats(c.tied_head ? "model.embed_tokens" : "lm_head");
    for (const Row& h : Norm(x, "model.norm")) {
      for (int64_t v = 0; v < c.vocab_size; ++v) {
        double sum = 0, magnitude = 0;
        for (size_t i = 0; i < h.size(); ++i) {
          const double term = h[i] * double{head[static_cast<size_t>(v) * h.size() + i]};
          sum += term;
          magnitude += std::abs(term);
        }
        run_.logits.push_back(sum);
        run_.magnitude.push_back(magnitude);
      }
    }
    return run_;
  }

 private:
  using Row = std::vector<double>;
  using Rows = std::vector<Row>;  // One a token

  const std::vector<float>& Floats(const std::string& name) const {
    return model_.floats.at(name + ".weight");
  }

  static void Add(Rows* x, const Rows& y) {
    for (size_t t = 0; t < x->size(); ++t) {
      for (size_t i = 0; i < (*x)[t].size(); ++i) (*x)[t][i] += y[t][i];
    }
  }

  // Over each run of as many elements as the gain has: whole rows, or the heads of q and k.
  Rows Norm(Rows x, const std::string& name) const {
    const std::vector<float>& gain = Floats(name);
    for (Row& row : x) {
      for (size_t begin = 0; begin < row.size(); begin += gain.size()) {
        double squares = 0;
        for (size_t i = 0; i < gain.size(); ++i) squares += row[begin + i] * row[begin + i];
        const double rms =
            std::sqrt(squares / static_cast<double>(gain.size()) + double{model_.config.norm_eps});
        for (size_t i = 0; i < gain.size(); ++i) row[begin + i] *= double{gain[i]} / rms;
      }
    }
    return x;
  }

  Rows Linear(const Rows& input, const std::string& name) {
    const size_t layer = std::string("model.layers.").size(), part = name.find('.', layer) + 1;
    const std::string own = OwnNorm(model_.config, name.substr(part));
    const Rows x = own.empty() ? input : Norm(input, name.substr(0, part) + own);
    const auto found = model_.ternary.find(name + ".weight");
    Rows y =
        found != model_.ternary.end() ? Ternary(x, found->second) : Multiply(x, Floats(name), 1.0);
    const auto bias = model_.floats.find(name + ".bias");
    if (bias == model_.floats.end()) return y;
    for (Row& row : y) {
      for (size_t i = 0; i < row.size(); ++i) row[i] += double{bias->second[i]};
    }
    return y;
  }

  template <class Weight>
  static Rows Multiply(const Rows& x, const std::vector<Weight>& w, double scale) {
    const size_t k = x[0].size(), n = w.size() / k;
    Rows y(x.size(), Row(n));
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t row = 0; row < n; ++row) {
        double sum = 0;
        for (size_t i = 0; i < k; ++i) sum += x[t][i] * static_cast<double>(w[row * k + i]);
        y[t][row] = sum * scale;
      }
    }
    return y;
  }

  Rows Ternary(const Rows& x, const TinyTernary& w) {
    if (rule_ == engine::ActivationRule::kNone) return Multiply(x, w.codes, double{w.beta});
    Rows q = x;
    std::vector<double> gamma;
    for (Row& row : q) {
      double amax = 0;
      for (const double value : row) amax = std::max(amax, std::abs(value));
      gamma.push_back(std::max(amax, 1e-5));
      for (double& value : row) {
        const double step = value * (127.0 / gamma.back());
        const double from_half = std::abs(std::abs(step - std::floor(step)) - 0.5);
        run_.tie_distance = std::min(run_.tie_distance, from_half);
        value = std::clamp(std::nearbyint(step), -128.0, 127.0);
      }
    }
    Rows y = Multiply(q, w.codes, 1.0);  // Integers below 2^53: exact
    for (size_t t = 0; t < y.size(); ++t) {
      for (double& value : y[t]) value *= double{w.beta} * (gamma[t] / 127.0);
    }
    return y;
  }

  // Pairs (i, i + E/2) of every head turn by position * theta^(-2i/E) / factor.
  void Rotate(Rows* x) const {
    const std::vector<double> factors =
        RopeFactors(model_.config.rope_scaling, model_.config.HeadDim(), model_.config.rope_theta);
    const auto e = static_cast<size_t>(model_.config.HeadDim());
    for (size_t t = 0; t < x->size(); ++t) {
      for (size_t head = 0; head < (*x)[t].size(); head += e) {
        for (size_t i = 0; i < e / 2; ++i) {
          const double factor = factors.empty() ? 1 : factors[i];
          const double angle = static_cast<double>(t) / factor *
                               std::pow(double{model_.config.rope_theta},
                                        -2.0 * static_cast<double>(i) / static_cast<double>(e));
          double &a = (*x)[t][head + i], &b = (*x)[t][head + i + e / 2];
          const double turned = a * std::cos(angle) - b * std::sin(angle);
          b = b * std::cos(angle) + a * std::sin(angle);
          a = turned;
        }
      }
    }
  }

  // A token sees its last `window` tokens, itself included; 0: all.
  Rows Attention(const std::string& prefix, const Rows& x, int64_t window) {
    const ModelConfig& c = model_.config;
    Rows q = Linear(x, prefix + "self_attn.q_proj"), k = Linear(x, prefix + "self_attn.k_proj");
    const Rows v = Linear(x, prefix + "self_attn.v_proj");
    if (c.qk_norm) {
      q = Norm(q, prefix + "self_attn.q_norm");
      k = Norm(k, prefix + "self_attn.k_norm");
    }
    Rotate(&q);
    Rotate(&k);
    const auto e = static_cast<size_t>(c.HeadDim()), heads = static_cast<size_t>(c.num_heads);
    const size_t group = heads / static_cast<size_t>(c.num_kv_heads);
    Rows out(x.size(), Row(heads * e));
    for (size_t t = 0; t < x.size(); ++t) {
      const auto seen = window > 0 ? static_cast<size_t>(window) : t + 1;
      const size_t first = t + 1 > seen ? t + 1 - seen : 0;
      for (size_t head = 0; head < heads; ++head) {
        const size_t at = head * e, kv = head / group * e;
        Row weight(t + 1);
        double total = 0;
        for (size_t s = first; s <= t; ++s) {
          double dot = 0;
          for (size_t i = 0; i < e; ++i) dot += q[t][at + i] * k[s][kv + i];
          total += weight[s] = std::exp(dot / std::sqrt(static_cast<double>(e)));
        }
        for (size_t s = first; s <= t; ++s) {
          for (size_t i = 0; i < e; ++i) out[t][at + i] += weight[s] / total * v[s][kv + i];
        }
      }
    }
    return Linear(out, prefix + "self_attn.o_proj");
  }

  Rows FeedForward(const std::string& prefix, const Rows& x) {
    Rows h = Linear(x, prefix + "mlp.gate_proj");
    const Rows up = Linear(x, prefix + "mlp.up_proj");
    const bool silu = model_.config.activation == Activation::kSilu;
    for (size_t t = 0; t < h.size(); ++t) {
      for (size_t i = 0; i < h[t].size(); ++i) {
        const double gate = h[t][i], positive = std::max(gate, 0.0);
        h[t][i] = (silu ? gate / (1.0 + std::exp(-gate)) : positive * positive) * up[t][i];
      }
    }
    return Linear(h, prefix + "mlp.down_proj");
  }

  const TinyModel& model_;
  engine::ActivationRule rule_;
  ReferenceRun run_;
};

}  // namespace tern::testing
