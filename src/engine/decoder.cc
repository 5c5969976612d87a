// See decoder.h.
#include "engine/decoder.h"

#include <algorithm>

#include "base/error.h"
#include "engine/scratch.h"

namespace tern::engine {

Decoder::Decoder(const Engine& engine, KvCache& cache, int64_t capacity)
    : engine_(engine),
      cache_(cache),
      capacity_(std::min(capacity, engine.config().context_length)),
      pass_(engine.config(), engine.weights().activation, engine.weights().code_activations,
            capacity_, engine.parallel()),
      head_input_(engine.parallel(), engine.weights().code_activations) {}

void Decoder::Check(const Request& request) const {
  const auto count = static_cast<int64_t>(request.tokens.size());
  const int64_t size = request.sequence->size(), vocab_size = engine_.config().vocab_size;
  TERN_CHECK_INPUT(count > 0, "no tokens to run; the prompt is empty");
  TERN_CHECK_INPUT(size + count <= capacity_, "the sequence would have ", size + count,
                   " tokens; there is room for ", capacity_, " (the model's context is ",
                   engine_.config().context_length,
                   "). Shorten the prompt or ask for fewer new tokens");
  for (const int32_t token : request.tokens) {
    TERN_CHECK_INPUT(token >= 0 && token < vocab_size, "token id ", token, " is outside of 0 to ",
                     vocab_size - 1);
  }
}

std::vector<std::vector<float>> Decoder::Run(std::span<const Request> requests) {
  for (const Request& request : requests) Check(request);
  std::vector<int64_t> sizes;
  for (const Request& request : requests) sizes.push_back(request.sequence->size());
  std::vector<std::vector<float>> logits(requests.size());
  try {
    for (const Request& request : requests)
      request.sequence->Reserve(static_cast<int64_t>(request.tokens.size()));
  } catch (const ResourceError&) {
    for (size_t i = 0; i < requests.size(); ++i) requests[i].sequence->Truncate(sizes[i]);
    throw;
  }
  std::vector<Part> parts;
  int64_t rows = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto count = static_cast<int64_t>(requests[i].tokens.size());
    for (int64_t begin = 0; begin < count;) {
      const int64_t taken = std::min(count - begin, kPassRows - rows);
      parts.push_back({i, begin, taken});
      begin += taken;
      rows += taken;
      if (rows < kPassRows && (begin < count || i + 1 < requests.size())) continue;
      Chunk(requests, parts, &logits);
      parts.clear();
      rows = 0;
    }
  }
  return logits;
}

int64_t Decoder::FillRows(std::span<const Request> requests, std::span<const Part> parts) {
  const int64_t d = engine_.config().hidden_size, pages = KvCache::PagesFor(capacity_);
  int64_t m = 0;
  for (const Part& part : parts) m += part.count;
  positions_.clear();
  sequence_of_.clear();
  tables_.assign(parts.size() * static_cast<size_t>(pages), 0);
  float* x = Room(&x_, m * d);
  for (size_t p = 0; p < parts.size(); ++p) {
    const Request& request = requests[parts[p].request];
    std::copy(request.sequence->pages().begin(), request.sequence->pages().end(),
              tables_.begin() + static_cast<int64_t>(p) * pages);
    for (int64_t i = 0; i < parts[p].count; ++i, x += d) {
      positions_.push_back(static_cast<int32_t>(request.sequence->size() + i));
      sequence_of_.push_back(static_cast<int32_t>(p));
      CopyRow(engine_.weights().embedding, request.tokens[static_cast<size_t>(parts[p].begin + i)],
              x);
    }
  }
  return m;
}

void Decoder::Chunk(std::span<const Request> requests, std::span<const Part> parts,
                    std::vector<std::vector<float>>* logits) {
  const int64_t m = FillRows(requests, parts);
  const ModelWeights& w = engine_.weights();
  const kernels::KvRows rows{m, positions_.data(), sequence_of_.data(), tables_.data(),
                             KvCache::PagesFor(capacity_)};
  for (int64_t l = 0; l < w.config.num_layers; ++l)
    pass_.Run(l, w.layers[static_cast<size_t>(l)], cache_.Layer(l), rows, x_.data());
  for (const Part& part : parts) requests[part.request].sequence->Advance(part.count);
  AppendLogits(requests, parts, logits);
}

void Decoder::AppendLogits(std::span<const Request> requests, std::span<const Part> parts,
                           std::vector<std::vector<float>>* logits) {
  const ModelWeights& w = engine_.weights();
  const TableMatrix& head = w.head ? *w.head : w.embedding;
  const int64_t d = w.config.hidden_size, v = w.config.vocab_size;
  // The rows that are asked for, together: the head is read once for all sequences.
  std::vector<std::pair<size_t, int64_t>> wanted;  // Request, row
  int64_t row = 0;
  for (const Part& part : parts) {
    const Request& request = requests[part.request];
    const bool last = part.begin + part.count == static_cast<int64_t>(request.tokens.size());
    for (int64_t i = 0; i < part.count; ++i, ++row) {
      if (request.which == LogitsOf::kAll || (last && i + 1 == part.count))
        wanted.emplace_back(part.request, row);
    }
  }
  if (wanted.empty()) return;
  const auto rows = static_cast<int64_t>(wanted.size());
  float* h = Room(&head_rows_, rows * d);
  for (int64_t i = 0; i < rows; ++i)
    std::copy_n(x_.data() + wanted[static_cast<size_t>(i)].second * d, d, h + i * d);
  std::vector<float> y(static_cast<size_t>(rows * v));
  head_input_.Set(h, rows, d, w.final_norm, w.config.norm_eps);
  Multiply(head_input_, head, y.data(), engine_.parallel());
  // A step of decoding, or a piece of one text: no copy of what may be tens of megabytes.
  if (wanted.front().first == wanted.back().first && (*logits)[wanted[0].first].empty()) {
    (*logits)[wanted[0].first] = std::move(y);
    return;
  }
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<float>& out = (*logits)[wanted[static_cast<size_t>(i)].first];
    out.insert(out.end(), y.begin() + i * v, y.begin() + (i + 1) * v);
  }
}

}  // namespace tern::engine
