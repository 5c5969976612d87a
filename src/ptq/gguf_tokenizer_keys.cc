// See gguf_tokenizer_keys.h.
#include "ptq/gguf_tokenizer_keys.h"

#include "transfer/gguf_export.h"

namespace tern::ptq {
namespace {

constexpr const char* kTemplate = "tokenizer.chat_template";

void CopyKeys(const formats::GgufReader& file, formats::GgufWriter* writer) {
  const auto key = [](const char* name) { return std::string("tokenizer.ggml.") + name; };
  for (const char* name : {"model", "pre"})
    if (file.Has(key(name))) writer->AddString(key(name), file.String(key(name)));
  for (const char* name : {"tokens", "merges"})
    if (file.Has(key(name))) writer->AddStrings(key(name), file.Strings(key(name)));
  if (file.Has(key("scores"))) {
    const std::vector<double> scores = file.Numbers(key("scores"));
    writer->AddF32s(key("scores"), std::vector<float>(scores.begin(), scores.end()));
  }
  if (file.Has(key("token_type"))) {
    const std::vector<double> types = file.Numbers(key("token_type"));
    writer->AddI32s(key("token_type"), std::vector<int32_t>(types.begin(), types.end()));
  }
  for (const char* name : {"bos", "eos", "eot", "eom", "unknown", "seperator", "padding"}) {
    const std::string id = key(name) + "_token_id";
    if (file.Has(id)) writer->AddU32(id, static_cast<uint32_t>(file.Int(id)));
  }
  for (const char* name :
       {"add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"})
    if (file.Has(key(name))) writer->AddBool(key(name), file.Flag(key(name)));
  if (file.Has(kTemplate)) writer->AddString(kTemplate, file.String(kTemplate));
}

}  // namespace

void AddTokenizerKeys(const FloatModel& model, formats::GgufWriter* writer) {
  if (model.path().ends_with(".gguf")) {
    CopyKeys(formats::GgufReader(model.path()), writer);
    return;
  }
  if (!model.tokenizer()) {
    writer->AddString("tokenizer.ggml.model", "none");
    return;
  }
  transfer::AddGgufTokenizer({&*model.tokenizer(), model.files()}, model.config().vocab_size,
                             writer);
  const auto chat_template = model.files().find("chat_template.jinja");
  if (chat_template != model.files().end()) writer->AddString(kTemplate, chat_template->second);
}

}  // namespace tern::ptq
