// Evaluates one sequence with libllama and writes every logit, for check_llama_cpp.py.
//
//   llama_logits eval MODEL.gguf IDS.txt OUT.f32     float32 [T, V], no header; IDS are decimal
//   numbers llama_logits tokenize MODEL.gguf TEXT.txt        prints the ids of the whole file, BOS
//   rules applied
//
// One batch, F32 key/value cache, no flash attention: the fewest roundings libllama offers, so that
// what is left is its own rule for activations (Q8_K blocks). Built by build_llama; not part of
// tern.

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "ggml.h"
#include "llama.h"

namespace {

int Fail(const std::string& message) {
  std::cerr << "llama_logits: " << message << "\n";
  return 1;
}

llama_context* NewContext(llama_model* model, uint32_t num_tokens) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = num_tokens;
  params.n_batch = num_tokens;
  params.n_ubatch = num_tokens;
  params.n_threads = 2;
  params.n_threads_batch = 2;
  params.type_k = GGML_TYPE_F32;
  params.type_v = GGML_TYPE_F32;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  return llama_init_from_model(model, params);
}

int Eval(llama_model* model, const char* ids_path, const char* out_path) {
  std::ifstream ids_file(ids_path);
  const std::vector<llama_token> ids{std::istream_iterator<llama_token>(ids_file), {}};
  if (ids.empty()) return Fail(std::string(ids_path) + " holds no token ids");
  const int32_t vocab_size = llama_vocab_n_tokens(llama_model_get_vocab(model));
  for (const llama_token id : ids) {
    if (id < 0 || id >= vocab_size) return Fail("token id " + std::to_string(id) + " out of range");
  }
  llama_context* context = NewContext(model, static_cast<uint32_t>(ids.size()));
  if (context == nullptr) return Fail("no context");
  llama_batch batch = llama_batch_init(static_cast<int32_t>(ids.size()), 0, 1);
  batch.n_tokens = static_cast<int32_t>(ids.size());
  for (int32_t i = 0; i < batch.n_tokens; ++i) {
    batch.token[i] = ids[static_cast<size_t>(i)];
    batch.pos[i] = i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  if (llama_decode(context, batch) != 0) return Fail("llama_decode failed");
  std::FILE* out = std::fopen(out_path, "wb");
  if (out == nullptr) return Fail(std::string("cannot write ") + out_path);
  for (int32_t i = 0; i < batch.n_tokens; ++i) {
    const float* logits_V = llama_get_logits_ith(context, i);
    const size_t count = static_cast<size_t>(vocab_size);
    if (std::fwrite(logits_V, sizeof(float), count, out) != count) return Fail("short write");
  }
  if (std::fclose(out) != 0) return Fail("short write");
  std::cout << ids.size() << " " << vocab_size << "\n";
  llama_batch_free(batch);
  llama_free(context);
  return 0;
}

int Tokenize(llama_model* model, const char* text_path) {
  std::ifstream file(text_path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<llama_token> ids(text.size() + 8);
  const int32_t count =
      llama_tokenize(llama_model_get_vocab(model), text.data(), static_cast<int32_t>(text.size()),
                     ids.data(), static_cast<int32_t>(ids.size()), /*add_special=*/true,
                     /*parse_special=*/false);
  if (count < 0) return Fail("llama_tokenize failed");
  for (int32_t i = 0; i < count; ++i) std::cout << ids[static_cast<size_t>(i)] << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (!(mode == "eval" && argc == 5) && !(mode == "tokenize" && argc == 4)) {
    return Fail("usage: eval MODEL IDS OUT | tokenize MODEL TEXT");
  }
  llama_backend_init();
  llama_model_params params = llama_model_default_params();
  params.vocab_only = mode == "tokenize";
  llama_model* model = llama_model_load_from_file(argv[2], params);
  if (model == nullptr) return Fail(std::string("cannot load ") + argv[2]);
  const int code = mode == "eval" ? Eval(model, argv[3], argv[4]) : Tokenize(model, argv[3]);
  llama_model_free(model);
  return code;
}
