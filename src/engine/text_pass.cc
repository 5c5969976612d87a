// See text_pass.h.
#include "engine/text_pass.h"

#include <algorithm>
#include <deque>

#include "base/error.h"
#include "kernels/ternary_pack/t2.h"

namespace tern::engine {
namespace {

constexpr int64_t kFloat = sizeof(float);

ModelConfig OneLayer(ModelConfig config) {
  config.num_layers = 1;
  return config;
}

// Pages of all texts that one chunk of kPassRows rows touches, at most: two that are cut, and n
// whole ones, n <= kPassRows / shortest, of which each fills all pages but a part of its last.
int64_t MostPages(int64_t shortest, int64_t longest) {
  return 2 * KvCache::PagesFor(longest) + KvCache::PagesFor(kPassRows) + kPassRows / shortest;
}

}  // namespace

TextPass::TextPass(const ModelWeights& weights, int64_t longest, const ParallelFor& parallel)
    : weights_(weights),
      parallel_(parallel),
      longest_(longest),
      pass_(weights.config, weights.activation, weights.code_activations, longest, parallel),
      head_input_(parallel, weights.code_activations),
      cache_(OneLayer(weights.config), MostPages(1, longest), kernels::KvType::kF32) {
  TERN_CHECK_INPUT(longest > 0 && longest <= weights.config.context_length, weights.source,
                   ": texts of ", longest, " tokens; want 1 to the model's context of ",
                   weights.config.context_length);
}

void TextPass::CheckTexts(std::span<const std::span<const int32_t>> texts) const {
  const int64_t vocab_size = weights_.config.vocab_size;
  for (const auto& text : texts) {
    TERN_CHECK_INPUT(!text.empty() && std::ssize(text) <= longest_, weights_.source, ": a text of ",
                     text.size(), " tokens; want 1 to ", longest_);
    for (const int32_t token : text) {
      TERN_CHECK_INPUT(token >= 0 && token < vocab_size, weights_.source, ": token id ", token,
                       " is outside of 0 to ", vocab_size - 1);
    }
  }
}

std::vector<std::vector<TextPass::Part>> TextPass::Chunks(
    std::span<const std::span<const int32_t>> texts) {
  std::vector<std::vector<Part>> chunks;
  int64_t room = 0;
  for (size_t text = 0; text < texts.size(); ++text) {
    for (int64_t begin = 0; begin < std::ssize(texts[text]);) {
      if (room == 0) {
        chunks.emplace_back();
        room = kPassRows;
      }
      const int64_t count = std::min(std::ssize(texts[text]) - begin, room);
      chunks.back().push_back({text, begin, count});
      begin += count;
      room -= count;
    }
  }
  return chunks;
}

void TextPass::Run(std::span<const std::span<const int32_t>> texts, float* x_MD) {
  CheckTexts(texts);
  float* x = x_MD;
  for (const auto& text : texts) {
    for (const int32_t token : text) {
      CopyRow(weights_.embedding, token, x);
      x += weights_.config.hidden_size;
    }
  }
  const auto chunks = Chunks(texts);
  for (int64_t layer = 0; layer < weights_.config.num_layers; ++layer)
    RunLayer(layer, texts, chunks, x_MD);
}

void TextPass::RunLayer(int64_t layer, std::span<const std::span<const int32_t>> texts,
                        std::span<const std::vector<Part>> chunks, float* x_MD) {
  const int64_t pages = KvCache::PagesFor(longest_);
  std::deque<Sequence> sequences;  // Of the chunk, in the order of its parts
  for (const std::vector<Part>& parts : chunks) {
    positions_.clear();
    sequence_of_.clear();
    tables_.assign(parts.size() * static_cast<size_t>(pages), 0);
    for (size_t p = 0; p < parts.size(); ++p) {
      const Part& part = parts[p];
      if (part.begin == 0) sequences.emplace_back(cache_).Reserve(std::ssize(texts[part.text]));
      const std::vector<int32_t>& mine = sequences.back().pages();
      std::copy(mine.begin(), mine.end(), tables_.begin() + static_cast<int64_t>(p) * pages);
      for (int64_t i = 0; i < part.count; ++i) {
        positions_.push_back(static_cast<int32_t>(part.begin + i));
        sequence_of_.push_back(static_cast<int32_t>(p));
      }
    }
    const auto m = std::ssize(positions_);
    pass_.Run(layer, weights_.layers[static_cast<size_t>(layer)], cache_.Layer(0),
              {m, positions_.data(), sequence_of_.data(), tables_.data(), pages}, x_MD);
    x_MD += m * weights_.config.hidden_size;
    // The last text may go on in the next chunk; the others' pages are free again.
    const Part& last = parts.back();
    const bool goes_on = last.begin + last.count < std::ssize(texts[last.text]);
    while (sequences.size() > (goes_on ? 1 : 0)) sequences.pop_front();
  }
}

void TextPass::Logits(const float* x_MD, int64_t rows, float* logits) {
  const ModelConfig& c = weights_.config;
  const TableMatrix& head = weights_.head ? *weights_.head : weights_.embedding;
  for (int64_t begin = 0; begin < rows; begin += kPassRows) {
    const int64_t m = std::min(kPassRows, rows - begin);
    head_input_.Set(x_MD + begin * c.hidden_size, m, c.hidden_size, weights_.final_norm,
                    c.norm_eps);
    Multiply(head_input_, head, logits + begin * c.vocab_size, parallel_);
  }
}

int64_t TextPass::BufferBytes(const ModelConfig& c, int64_t shortest, int64_t longest) {
  const int64_t d = c.hidden_size, f = c.intermediate_size, e = c.HeadDim(), q = c.num_heads * e,
                kv = c.num_kv_heads * e;
  // An input of k numbers a row: normed floats, and their codes (linear.h).
  const auto input = [](int64_t k) {
    const int64_t codes =
        std::max(kernels::T2PaddedK(k),
                 kernels::Int16Blocks(k) * static_cast<int64_t>(sizeof(kernels::Int16Block)));
    return kFloat * (k + 3) + codes;
  };
  const int64_t normed = c.HasInputNorms() ? d : 0;
  const int64_t row = kFloat * (q + 2 * kv + 2 * f + d + normed + c.num_heads) +  // LayerPass
                      input(std::max({d, q, f})) + input(d);
  return kPassRows * row + kFloat * longest * e +  // Angles of RoPE
         MostPages(shortest, longest) *
             kernels::KvPageBytes(kernels::KvType::kF32, c.num_kv_heads, e);
}

}  // namespace tern::engine
