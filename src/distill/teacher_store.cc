// See teacher_store.h.
#include "distill/teacher_store.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/topk.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/stop_signal.h"
#include "data/loader.h"
#include "h5/h5.h"

namespace tern::distill {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kVersion = 2;
constexpr int64_t kShardBytes = 64 << 20;
constexpr int64_t kEntryBytes = 8;  // An id and a log-probability
constexpr const char* kIds = "/ids";
constexpr const char* kLogProbs = "/log_probs";
constexpr const char* kHashes = "/sample_hashes";

std::string ShardPath(const std::string& folder, int64_t shard) {
  char name[64];
  std::snprintf(name, sizeof name, "shard-%06lld.teacher.h5", static_cast<long long>(shard));
  return StrCat(folder, "/", name);
}

// The key in words, as attributes of a shard.
std::vector<std::pair<std::string, std::string>> Words(const TeacherStoreKey& key) {
  return {{"teacher_sha256", key.teacher_sha256},
          {"tokenizer_sha256", key.tokenizer_sha256},
          {"seed", StrCat(key.seed)},
          {"sequence_length", StrCat(key.sequence_length)},
          {"k", StrCat(key.k)},
          {"temperature", StrCat(key.temperature)},
          {"packing", key.packing},
          {"precision", key.precision}};
}

uint64_t HashOfRow(const data::Batch& batch, int64_t row) {
  return data::MicroBatch(batch, row, batch.batch).Hash();
}

void CheckSample(const std::string& path, int64_t sample, uint64_t found, uint64_t wanted) {
  TERN_CHECK_INPUT(found == wanted, path, ": sample ", sample,
                   " was made of other tokens than this run trains on; give teacher.store another "
                   "folder, or delete this one");
}

void CheckKey(const h5::File& file, const TeacherStoreKey& key) {
  TERN_CHECK_FORMAT(
      file.HasAttribute("/", "version") && file.IntAttribute("/", "version") == kVersion,
      file.path(), " is no shard of a teacher store of version ", kVersion);
  for (const auto& [name, want] : Words(key)) {
    const std::string found = file.StringAttribute("/", name);
    TERN_CHECK_INPUT(found == want, file.path(), ": its ", name,
                     name == "precision" ? " (train.precision, or teacher.runtime: engine)" : "",
                     " is ", found, ", this run's is ", want,
                     "; a store holds for one teacher, tokenizer, data and loss: give "
                     "teacher.store another folder, or delete this one");
  }
}

// What a damaged shard takes to go on.
template <class Read>
auto Reading(const Read& read) {
  try {
    return read();
  } catch (const FormatError& error) {
    throw FormatError(StrCat(error.what(), ". Delete this shard, and the next run makes it again"));
  }
}

struct ShardData {
  std::vector<int32_t> ids;
  std::vector<float> log_probs;
  std::vector<uint64_t> hashes;
};

// One sample a time: rows of logits are V wide.
void AddSample(Teacher& teacher, const data::Batch& batch, int64_t row, const TeacherStoreKey& key,
               nn::ComputeType compute, ShardData* out) {
  const at::Tensor logits_TV =
      teacher.Logits(teacher.Hidden(batch, row, 1, compute, nullptr), compute);
  if (!logits_TV.isfinite().all().item<bool>()) {
    throw NumericError(
        "the teacher's logits hold NaN or Inf; check the teacher (teacher.from) with "
        "tern eval");
  }
  const auto [top_TK, ids_TK] = at::topk(at::log_softmax(logits_TV / key.temperature, 1), key.k, 1);
  const at::Tensor ids = ids_TK.to(at::kInt).contiguous().cpu(), top = top_TK.contiguous().cpu();
  out->ids.insert(out->ids.end(), ids.const_data_ptr<int32_t>(),
                  ids.const_data_ptr<int32_t>() + ids.numel());
  out->log_probs.insert(out->log_probs.end(), top.const_data_ptr<float>(),
                        top.const_data_ptr<float>() + top.numel());
  out->hashes.push_back(HashOfRow(batch, row));
}

void WriteShard(const std::string& path, const TeacherStoreKey& key, int64_t first,
                const ShardData& data) {
  const std::string beside = StrCat(path, ".tmp.", ::getpid());
  h5::File file = h5::File::Create(beside);
  file.SetAttribute("/", "version", kVersion);
  file.SetAttribute("/", "first_sample", first);
  for (const auto& [name, value] : Words(key)) file.SetAttribute("/", name, value);
  const auto write = [&](const char* name, h5::Type type, const auto& values) {
    file.Write(name, type, {static_cast<int64_t>(values.size())}, values.data());
  };
  write(kIds, h5::Type::kI32, data.ids);
  write(kLogProbs, h5::Type::kF32, data.log_probs);
  write(kHashes, h5::Type::kU64, data.hashes);
  file.Close();
  SyncPath(beside);
  fs::rename(beside, path);
  SyncPath(fs::path(path).parent_path().string());
}

// Samples that a shard holds; throws when it is another store's.
int64_t SamplesOf(const std::string& path, const TeacherStoreKey& key, int64_t first) {
  const h5::File file = h5::File::OpenForReading(path);
  CheckKey(file, key);
  const auto count = [&](const char* name) { return file.Info(name).shape.at(0); };
  const int64_t samples = count(kHashes), entries = samples * key.sequence_length * key.k;
  TERN_CHECK_FORMAT(file.IntAttribute("/", "first_sample") == first && count(kIds) == entries &&
                        count(kLogProbs) == entries,
                    path, " holds ", count(kIds), " ids for ", samples, " samples from ",
                    file.IntAttribute("/", "first_sample"), " on, want ", entries, " from ", first);
  return samples;
}

// What a short last shard of that many samples holds. Throws InputError when it is of other samples
// than `batches`.
ShardData ReadShard(const std::string& path, const TeacherStoreKey& key, int64_t first,
                    int64_t samples, const SampleBatches& batches) {
  const auto entries = static_cast<size_t>(samples * key.sequence_length * key.k);
  ShardData data;
  data.ids.resize(entries);
  data.log_probs.resize(entries);
  data.hashes.resize(static_cast<size_t>(samples));
  const h5::File file = h5::File::OpenForReading(path);
  const auto read = [&](const char* name, h5::Type type, auto* values) {
    file.Read(name, type, values->data(),
              static_cast<int64_t>(values->size() * sizeof(values->front())));
  };
  read(kIds, h5::Type::kI32, &data.ids);
  read(kLogProbs, h5::Type::kF32, &data.log_probs);
  read(kHashes, h5::Type::kU64, &data.hashes);
  for (int64_t i = 0; i < samples; ++i)
    CheckSample(path, first + i, data.hashes[static_cast<size_t>(i)],
                HashOfRow(batches(first + i, 1), 0));
  return data;
}

}  // namespace

int64_t TeacherStoreKey::SamplesPerShard() const {
  return std::max<int64_t>(1, kShardBytes / (sequence_length * k * kEntryBytes));
}

void FillTeacherStore(const std::string& folder, const TeacherStoreKey& key, int64_t count,
                      const std::function<Teacher&()>& teacher, const SampleBatches& batches,
                      nn::ComputeType compute,
                      const std::function<void(int64_t, int64_t)>& progress) {
  const at::NoGradGuard no_grad;
  MakeFolders(folder);
  const FileLock lock(folder + "/lock");
  RemoveUnfinishedFiles(folder);
  const int64_t per_shard = key.SamplesPerShard();
  for (int64_t first = 0; first < count; first += per_shard) {
    const std::string path = ShardPath(folder, first / per_shard);
    const int64_t wanted = std::min(per_shard, count - first);
    ShardData data;
    if (fs::exists(path)) {
      const int64_t samples = Reading([&] { return SamplesOf(path, key, first); });
      if (samples >= wanted) continue;
      data = Reading([&] {  // Short, and goes on
        return ReadShard(path, key, first, samples, batches);
      });
    }
    for (auto i = std::ssize(data.hashes); i < wanted; ++i) {
      if (StopRequested()) {
        if (i > 0) WriteShard(path, key, first, data);
        throw StoppedError(StrCat("stopped by ", SignalName(StopSignal()), " with ", first + i,
                                  " samples in ", folder, "; run the same command again to go on"));
      }
      AddSample(teacher(), batches(first + i, 1), 0, key, compute, &data);
      if (progress) progress(first + i + 1, count);
    }
    WriteShard(path, key, first, data);
  }
}

struct TeacherStore::Impl {
  std::string folder;
  TeacherStoreKey key;
  int64_t open_shard = -1;
  std::optional<h5::File> file;
  std::vector<uint64_t> hashes;

  void Open(int64_t shard) {
    if (shard == open_shard) return;
    Reading([&] {
      file.emplace(h5::File::OpenForReading(ShardPath(folder, shard)));
      hashes.resize(static_cast<size_t>(file->Info(kHashes).shape.at(0)));
      file->Read(kHashes, h5::Type::kU64, hashes.data(),
                 static_cast<int64_t>(hashes.size() * sizeof(uint64_t)));
    });
    open_shard = shard;
  }
};

TeacherStore::TeacherStore(const std::string& folder, const TeacherStoreKey& key, int64_t count)
    : impl_(std::make_unique<Impl>()) {
  impl_->folder = folder;
  impl_->key = key;
  const int64_t per_shard = key.SamplesPerShard();
  for (int64_t first = 0; first < count; first += per_shard) {
    const std::string path = ShardPath(folder, first / per_shard);
    TERN_CHECK_INPUT(fs::exists(path), path, " is missing; the store holds ", first, " of ", count,
                     " samples");
    const int64_t found = SamplesOf(path, key, first), want = std::min(per_shard, count - first);
    TERN_CHECK_INPUT(found >= want, path, " holds ", found, " samples, want ", want);
  }
}
TeacherStore::~TeacherStore() = default;
TeacherStore::TeacherStore(TeacherStore&&) noexcept = default;

TeacherChunk TeacherStore::Rows(const data::Batch& batch, int64_t begin, int64_t rows,
                                int64_t sample) const {
  const TeacherStoreKey& key = impl_->key;
  const int64_t entries = key.sequence_length * key.k;
  at::Tensor ids = at::empty({rows * key.sequence_length, key.k}, at::kInt),
             log_probs = at::empty({rows * key.sequence_length, key.k}, at::kFloat);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t wanted = sample + begin + row, per_shard = key.SamplesPerShard();
    impl_->Open(wanted / per_shard);
    const int64_t within = wanted % per_shard;
    const uint64_t hash = HashOfRow(batch, begin + row);
    TERN_CHECK_INPUT(within < std::ssize(impl_->hashes), impl_->file->path(), " has no sample ",
                     wanted, "; it holds ", impl_->hashes.size());
    CheckSample(impl_->file->path(), wanted, impl_->hashes[static_cast<size_t>(within)], hash);
    Reading([&] {
      impl_->file->ReadRange(kIds, h5::Type::kI32, within * entries, entries,
                             ids.mutable_data_ptr<int32_t>() + row * entries);
      impl_->file->ReadRange(kLogProbs, h5::Type::kF32, within * entries, entries,
                             log_probs.mutable_data_ptr<float>() + row * entries);
    });
  }
  return {{}, ids.to(at::kLong), log_probs};
}

}  // namespace tern::distill
