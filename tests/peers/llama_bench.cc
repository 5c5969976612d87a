// Times libllama for `tern bench --against llama.cpp`: prints one JSON line a call.
//
//   llama_bench decode  MODEL.gguf THREADS PROMPT NEW    seconds of every decoding step
//   llama_bench prefill MODEL.gguf THREADS TOKENS REPEAT seconds of every evaluation of TOKENS
//   tokens llama_bench gemm    TYPE THREADS N,K,M MATRICES REPEAT  seconds of every product of
//   ggml, without repacked weights
//
// Token ids are fixed and outputs ignored. The rest is as `llama-cli` runs by default: F16 cache,
// weights repacked for the processor where libllama does so, one batch. Built by build_llama; not
// part of tern.
#include <strings.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "ggml-cpu.h"
#include "ggml.h"
#include "llama.h"

namespace {

using Clock = std::chrono::steady_clock;

int Fail(const std::string& message) {
  std::cerr << "llama_bench: " << message << "\n";
  return 1;
}

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

// Evaluates `count` tokens at the end of the sequence; seconds, or a negative number on failure.
double Evaluate(llama_context* context, int32_t count, int32_t vocab_size) {
  std::vector<llama_token> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back((7 + 13 * i) % vocab_size);
  const auto begin = Clock::now();
  if (llama_decode(context, llama_batch_get_one(tokens.data(), count)) != 0) return -1;
  llama_synchronize(context);
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// REPEAT products of M fp32 rows with MATRICES matrices of random blocks in turn, after one that
// does not count.
int Products(const std::string& type_name, int threads, const char* shape, int matrices,
             int repeat) {
  long n = 0, k = 0, m = 0;
  if (std::sscanf(shape, "%ld,%ld,%ld", &n, &k, &m) != 3) return Fail("want N,K,M");
  ggml_type type = GGML_TYPE_COUNT;
  for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
    const char* name = ggml_type_name(static_cast<ggml_type>(i));
    if (name != nullptr && strcasecmp(name, type_name.c_str()) == 0)
      type = static_cast<ggml_type>(i);
  }
  if (type == GGML_TYPE_COUNT) return Fail("no type " + type_name);
  const size_t bytes = static_cast<size_t>(n) * ggml_row_size(type, k);
  ggml_init_params params{static_cast<size_t>(matrices) * (bytes + 4096) + (256u << 20) +
                              static_cast<size_t>(m) * static_cast<size_t>(n + k) * 8,
                          nullptr, false};
  ggml_context* context = ggml_init(params);
  ggml_tensor* x = ggml_new_tensor_2d(context, GGML_TYPE_F32, k, m);
  for (long i = 0; i < k * m; ++i)
    static_cast<float*>(x->data)[i] = static_cast<float>(i % 251) / 125 - 1;
  std::vector<ggml_cgraph*> graphs;
  for (int i = 0; i < matrices; ++i) {
    ggml_tensor* w = ggml_new_tensor_2d(context, type, k, n);
    auto* p = static_cast<uint8_t*>(w->data);
    for (size_t b = 0; b < bytes; ++b) p[b] = static_cast<uint8_t>((b * 2654435761u >> 13) & 0x3F);
    graphs.push_back(ggml_new_graph_custom(context, 4, false));
    ggml_build_forward_expand(graphs.back(), ggml_mul_mat(context, w, x));
  }
  std::string seconds;
  std::vector<uint8_t> work;
  ggml_threadpool_params pool_params = ggml_threadpool_params_default(threads);
  ggml_threadpool* pool = ggml_threadpool_new(&pool_params);
  for (int i = -2; i < repeat; ++i) {
    ggml_cgraph* graph = graphs[static_cast<size_t>(i + 2) % graphs.size()];
    ggml_cplan plan = ggml_graph_plan(graph, threads, pool);
    if (work.size() < plan.work_size) work.resize(plan.work_size);
    plan.work_data = work.data();
    const auto begin = Clock::now();
    if (ggml_graph_compute(graph, &plan) != GGML_STATUS_SUCCESS)
      return Fail("ggml_graph_compute failed");
    const double time = std::chrono::duration<double>(Clock::now() - begin).count();
    if (i >= 0) seconds += (i > 0 ? "," : "") + Number(time);
  }
  std::cout << "{\"peer\":\"ggml\",\"seconds\":[" << seconds << "]}\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "gemm" && argc == 7) {
    return Products(argv[2], std::atoi(argv[3]), argv[4], std::atoi(argv[5]), std::atoi(argv[6]));
  }
  if (argc != 6 || (mode != "decode" && mode != "prefill")) {
    return Fail("usage: decode MODEL THREADS PROMPT NEW | prefill MODEL THREADS TOKENS REPEAT");
  }
  const int threads = std::atoi(argv[3]), first = std::atoi(argv[4]), second = std::atoi(argv[5]);
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_backend_init();
  const auto begin = Clock::now();
  llama_model* model = llama_model_load_from_file(argv[2], llama_model_default_params());
  if (model == nullptr) return Fail(std::string("cannot load ") + argv[2]);
  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(first + second + 8);
  params.n_batch = params.n_ubatch = static_cast<uint32_t>(std::max(first, 32));
  params.n_threads = params.n_threads_batch = threads;
  llama_context* context = llama_init_from_model(model, params);
  if (context == nullptr) return Fail("no context");
  const double load_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const int32_t vocab_size = llama_vocab_n_tokens(llama_model_get_vocab(model));
  const bool decode = mode == "decode";
  if (Evaluate(context, decode ? std::max(first, 1) : first, vocab_size) < 0) {  // Also warms up
    return Fail("llama_decode failed");
  }
  std::string seconds;
  for (int i = 0; i < second; ++i) {
    if (!decode) llama_memory_clear(llama_get_memory(context), true);
    const double step = Evaluate(context, decode ? 1 : first, vocab_size);
    if (step < 0) return Fail("llama_decode failed");
    seconds += (i > 0 ? "," : "") + Number(step);
  }
  std::cout << "{\"peer\":\"llama.cpp\",\"load_seconds\":" << load_seconds << ",\"seconds\":["
            << seconds << "]}\n";
  llama_free(context);
  llama_model_free(model);
  return 0;
}
