// See export.h.
#include "transfer/export.h"

#include <unistd.h>

#include <filesystem>

#include "arch/format_names.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "engine/model_source.h"
#include "transfer/gguf_export.h"
#include "transfer/hf_export.h"
#include "transfer/import.h"
#include "transfer/model_file_export.h"
#include "transfer/verify.h"

namespace tern::transfer {
namespace {

namespace fs = std::filesystem;

bool IsFolderFormat(std::string_view format) { return format.starts_with("hf/"); }

}  // namespace

std::string ExportName(const std::string& name, std::string_view format) {
  const size_t slash = format.find('/');
  const std::string type(format.substr(slash + 1));
  if (format == kModelFile) return name + ".h5";
  return IsFolderFormat(format) ? StrCat(name, "-hf-", type) : StrCat(name, "-", type, ".gguf");
}

void PutInPlace(const std::function<void(const std::string& path)>& write,
                const model::Decoder& decoder, const ExportText& text, const std::string& format,
                const std::string& path) {
  if (text.tokenizer == nullptr)
    LogWarn(path, " gets no tokenizer: the model has none that is read");
  const std::string beside = StrCat(path, ".unverified.", ::getpid());
  std::error_code ignored;
  fs::remove_all(beside, ignored);
  try {
    if (IsFolderFormat(format)) MakeFolders(beside);
    write(beside);
    if (IsFolderFormat(format)) SyncPath(beside);
    const engine::ModelWeights weights = engine::LoadModel(beside);
    CompareWeights(decoder, weights, format);
    CompareTokenizers(text.tokenizer, weights);
    if (IsFolderFormat(format)) fs::remove_all(path);
    fs::rename(beside, path);
  } catch (const fs::filesystem_error& error) {
    fs::remove_all(beside, ignored);
    throw ResourceError(StrCat("cannot put the export in place: ", error.what()));
  } catch (...) {
    fs::remove_all(beside, ignored);
    throw;
  }
  const std::string folder = fs::path(path).parent_path().string();
  SyncPath(folder.empty() ? "." : folder);
}

void Export(const model::Decoder& decoder, const ExportText& text, const ExportOptions& options,
            const std::string& path) {
  const std::string why = WhyFormatCannotHold(decoder.config(), options.format);
  if (!why.empty()) throw RecipeError(why);
  CheckPlainInputs(decoder, options.format);
  if (HoldsTrainedCodes(options.format)) {
    throw RecipeError(StrCat(options.format,
                             " holds the codes of a checkpoint that was trained with ",
                             "quantize.rules; for other models there is tern quantize"));
  }
  const auto write = [&](const std::string& beside) {
    if (options.format == kModelFile) {
      WriteDecoder(decoder, text, options, beside);
    } else if (IsFolderFormat(options.format)) {
      WriteHfFolder(decoder, text, options, beside);
    } else {
      WriteGguf(decoder, text, options, beside);
    }
  };
  PutInPlace(write, decoder, text, options.format, path);
}

}  // namespace tern::transfer
