// See sharding.h.
#include "train/sharding.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <functional>

#include "base/error.h"
#include "plan/rank_share.h"
#include "plan/tensor_split.h"
#include "quant/ternary_rows.h"

namespace tern::train {
namespace {

// Calls back when backward has added to a leaf's .grad.
class AfterAccumulate : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit AfterAccumulate(std::function<void()> function) : function_(std::move(function)) {}
  void operator()(const at::Tensor&) override { function_(); }

 private:
  std::function<void()> function_;
};

int64_t LayerOf(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  return name.starts_with(kPrefix) ? std::stoll(name.substr(kPrefix.size())) : -1;
}

}  // namespace

Sharding::Sharding(parallel::Group* group, const recipe::ParallelConfig& config,
                   model::Decoder* decoder, bool has_late_gradients)
    : ranks_(group),
      group_(group),
      shards_(group),
      config_(config),
      whole_(decoder->parameters()),
      slices_(whole_.size()) {
  plan::DataRanks(config, group == nullptr ? 1 : group->size());  // That it divides
  if (config.tensor > 1) Cut(*group, decoder);
  owned_ = whole_;
  splits_.resize(whole_.size());
  rows_only_.resize(whole_.size());
  if (group_ == nullptr) return;
  const int ranks = group_->size(), size = static_cast<int>(plan::ShardSize(config, ranks));
  if (config.shard != recipe::Sharding::kNone && size < ranks) {
    const int place = group_->rank() % size;
    part_ = group_->Part(group_->rank() - place, /*stride=*/1, size);
    replicas_ = group_->Part(place, /*stride=*/size, ranks / size);
    shards_ = part_.get();
  }
  if (config.shard == recipe::Sharding::kNone) {
    std::vector<at::Tensor> leaves;
    for (const model::Parameter& parameter : whole_) {
      if (parameter.value.requires_grad()) leaves.push_back(parameter.value);
    }
    if (has_late_gradients || leaves.empty()) return;
    reducer_ = std::make_unique<parallel::GradientReducer>(
        *group_, leaves, static_cast<int64_t>(config.bucket_mib * (1 << 20)));
  } else {
    Spread(decoder);
  }
}

Sharding::~Sharding() {
  for (size_t i = 0; i < whole_.size(); ++i) {
    if (spread(i) && !rows_only_[i]) {
      torch::autograd::impl::post_acc_grad_hooks(whole_[i].value).reset();
    }
  }
}

// Two axes of ranks, and this rank's slices.
void Sharding::Cut(parallel::Group& ranks, model::Decoder* decoder) {
  const int size = static_cast<int>(config_.tensor), rank = ranks.rank() % size;
  tensor_ = ranks.Part(ranks.rank() - rank, /*stride=*/1, size);
  exchange_ = std::make_unique<TensorExchange>(*tensor_);
  if (ranks.size() > size) data_ = ranks.Part(rank, /*stride=*/size, ranks.size() / size);
  group_ = shards_ = data_.get();
  std::vector<TensorCodes::Matrix> matrices;
  for (size_t i = 0; i < whole_.size(); ++i) {
    const ParameterSpec& spec = whole_[i].spec;
    slices_[i] = plan::TensorSlices(spec, size);
    if (slices_[i].empty()) continue;
    const parallel::MatrixSlice& mine = slices_[i][static_cast<size_t>(rank)];
    std::vector<int64_t> shape = {mine.rows};
    if (spec.shape.size() == 2) shape.push_back(mine.columns);
    decoder->KeepPart(i, at::empty(shape, whole_[i].value.options()),
                      {mine.first_row, mine.first_column});
    if (spec.role == ParameterRole::kLinear)
      matrices.push_back({whole_[i].value, slices_[i], spec.shape[0], spec.shape[1]});
  }
  if (decoder->config().linear == LinearKind::kBitLinear)
    tensor_codes_ = std::make_unique<TensorCodes>(*tensor_, std::move(matrices));
}

void Sharding::Spread(model::Decoder* decoder) {
  const bool zero3 = config_.shard == recipe::Sharding::kZero3;
  std::vector<GatheredCodes::Matrix> matrices;
  std::vector<size_t> parameter_of;
  int64_t exchanged = 0;
  for (size_t i = 0; i < whole_.size(); ++i) {
    const ParameterSpec& spec = whole_[i].spec;
    const at::Tensor& value = whole_[i].value;  // Whole, or a slice of a tensor group
    if (value.dim() != 2) continue;
    const int64_t k = value.size(1);
    exchanged += static_cast<int64_t>(value.nbytes());
    splits_[i] = parallel::SplitRows(value.size(0), quant::RowUnit(k), shards_->size());
    const int64_t first = splits_[i].first(shards_->rank()),
                  rows = splits_[i].rows(shards_->rank());
    if (zero3 && spec.role == ParameterRole::kLinear) {
      rows_only_[i] = true;
      decoder->KeepPart(i, at::empty({rows, k}, value.options()), {first, 0});
      matrices.push_back({whole_[i].value, splits_[i], LayerOf(spec.name)});
      parameter_of.push_back(i);
      continue;
    }
    owned_[i].value = whole_[i].value.detach().narrow(0, first, rows);
    if (!whole_[i].value.requires_grad()) continue;
    torch::autograd::impl::set_post_acc_grad_hooks(
        whole_[i].value, std::make_unique<AfterAccumulate>([this, i] {
          if (config_.shard == recipe::Sharding::kZero1 && !last_) return;
          StartExchange(i, whole_[i].value.grad());
          whole_[i].value.mutable_grad() = at::Tensor();
        }));
  }
  max_under_way_ = plan::MaxBytesUnderWay(exchanged);
  if (!zero3) return;
  codes_ = std::make_unique<GatheredCodes>(
      *shards_, std::move(matrices), [this, parameter_of](size_t matrix, const at::Tensor& dw_NK) {
        StartExchange(parameter_of[matrix], dw_NK);
      });
}

model::Place Sharding::place(size_t parameter) const {
  if (rows_only_[parameter]) return owned_place(parameter);
  if (slices_[parameter].empty()) return {};
  const parallel::MatrixSlice& mine = slices_[parameter][static_cast<size_t>(tensor_->rank())];
  return {mine.first_row, mine.first_column};
}

model::Place Sharding::owned_place(size_t parameter) const {
  model::Place of_slice;
  if (!rows_only_[parameter]) of_slice = place(parameter);
  if (spread(parameter)) of_slice.first_row += splits_[parameter].first(shards_->rank());
  return of_slice;
}

// What several ranks have is written in parts, too, so that no rank waits for another's disk.
Sharding::SavedRows Sharding::RowsToSave(size_t parameter, const at::Tensor& owned) const {
  SavedRows saved{owned, owned_place(parameter).first_row};
  if (ranks_ == nullptr) return saved;
  const auto take = [&](const parallel::Group* of) {
    if (of == nullptr) return;
    const parallel::RowSplit split = parallel::SplitRows(saved.rows.size(0), 1, of->size());
    saved = {saved.rows.narrow(0, split.first(of->rank()), split.rows(of->rank())),
             saved.first + split.first(of->rank())};
  };
  const std::vector<parallel::MatrixSlice>& slices = slices_[parameter];
  const bool by_columns = !slices.empty() && slices[0].rows == whole_[parameter].spec.shape[0];
  take(spread(parameter) ? replicas_.get() : group_);
  if (slices.empty()) take(tensor_.get());
  if (by_columns) saved = JoinColumns(parameter, saved);
  return saved;
}

Sharding::SavedRows Sharding::RowsToSave(const at::Tensor& common) const {
  if (group_ == nullptr) return {common};
  const parallel::RowSplit split = parallel::SplitRows(common.size(0), 1, group_->size());
  return {common.narrow(0, split.first(group_->rank()), split.rows(group_->rank())),
          split.first(group_->rank())};
}

// Of rows that all ranks of the tensor group have in part, whole ones: this rank's share of them.
Sharding::SavedRows Sharding::JoinColumns(size_t parameter, const SavedRows& mine) const {
  std::vector<parallel::MatrixSlice> slices = slices_[parameter];
  for (parallel::MatrixSlice& slice : slices) {
    slice.first_row = 0;
    slice.rows = mine.rows.size(0);
  }
  const parallel::RowSplit split = parallel::SplitRows(mine.rows.size(0), 1, tensor_->size());
  return {parallel::ExchangeRows(*tensor_, mine.rows, slices, split, "checkpoint"),
          mine.first + split.first(tensor_->rank())};
}

nn::WeightSource* Sharding::source() {
  if (tensor_codes_) return tensor_codes_.get();
  return codes_.get();
}

void Sharding::PrepareForward() {
  if (codes_) codes_->Refresh();
  if (tensor_codes_) tensor_codes_->Refresh();
}

void Sharding::BeforeBackward(bool last) {
  last_ = last;
  if (reducer_) reducer_->BeforeBackward(last);
}

void Sharding::StartExchange(size_t parameter, const at::Tensor& grad) {
  const at::NoGradGuard no_grad;
  const parallel::RowSplit& split = splits_[parameter];
  const bool bf16 = config_.reduce == recipe::ReduceType::kBf16;
  const at::Tensor sent = bf16 ? grad.to(at::kBFloat16) : grad.contiguous();
  const int64_t rows = split.rows(shards_->rank());
  Exchange exchange{parameter, {}, {}};
  exchange.received = at::empty({shards_->size() * rows, sent.size(1)}, sent.options());
  exchange.pending = shards_->AllToAll(
      sent, split.counts(), exchange.received,
      std::vector<int64_t>(static_cast<size_t>(shards_->size()), rows), "gradients");
  bytes_under_way_ += static_cast<int64_t>(sent.nbytes());
  exchanges_.push_back(std::move(exchange));
  while (bytes_under_way_ > max_under_way_) FinishExchange();
}

// Waits for the oldest exchange and adds what came, in rank order.
void Sharding::FinishExchange() {
  const at::NoGradGuard no_grad;
  Exchange exchange = std::move(exchanges_.front());
  exchanges_.pop_front();
  exchange.pending.Wait();
  const size_t i = exchange.parameter;
  const int64_t rows = splits_[i].rows(shards_->rank());
  bytes_under_way_ -= splits_[i].all() * exchange.received.size(1) *
                      static_cast<int64_t>(exchange.received.element_size());
  if (rows == 0) return;
  at::Tensor sum = exchange.received.narrow(0, 0, rows).to(at::kFloat, false, /*copy=*/true);
  for (int rank = 1; rank < shards_->size(); ++rank) {
    sum.add_(exchange.received.narrow(0, rank * rows, rows));
  }
  at::Tensor& grad = owned_[i].value.mutable_grad();
  if (grad.defined()) {
    grad.add_(sum);
  } else {
    grad = sum;
  }
}

void Sharding::FinishGradients() {
  if (group_ == nullptr || reducer_) return;
  while (!exchanges_.empty()) FinishExchange();
  if (replicas_) SumReplicas();
  SumSmallGradients();
}

// The groups' sums of the rows that this rank owns, in place.
void Sharding::SumReplicas() {
  const at::NoGradGuard no_grad;
  std::vector<parallel::Pending> pending;
  for (size_t i = 0; i < whole_.size(); ++i) {
    if (!spread(i) || !owned_[i].value.grad().defined()) continue;
    pending.push_back(replicas_->AllReduceSum(owned_[i].value.grad(), "replica gradients"));
  }
  for (parallel::Pending& sum : pending) sum.Wait();
}

// Norms and biases, all in one sum; with shard: none the matrices one by one.
void Sharding::SumSmallGradients() {
  std::vector<at::Tensor> small;
  for (size_t i = 0; i < whole_.size(); ++i) {
    if (spread(i)) continue;
    const at::Tensor& grad = whole_[i].value.grad();
    if (!grad.defined()) continue;  // Frozen
    if (grad.dim() == 2 && config_.shard == recipe::Sharding::kNone) {
      SumTogether({grad}, "gradients");
    } else {
      small.push_back(grad);
    }
  }
  SumTogether(std::move(small), "small gradients");
}

void Sharding::SumGradients(const std::vector<model::Parameter>& common) {
  if (group_ == nullptr) return;
  std::vector<at::Tensor> grads;
  for (const model::Parameter& parameter : common) grads.push_back(parameter.value.grad());
  SumTogether(std::move(grads), "gradients beside the model");
}

void Sharding::SumTogether(std::vector<at::Tensor> tensors, const char* kind) {
  const at::NoGradGuard no_grad;
  std::erase_if(tensors, [](const at::Tensor& tensor) { return !tensor.defined(); });
  if (tensors.empty()) return;
  std::vector<at::Tensor> flat;
  for (const at::Tensor& tensor : tensors) flat.push_back(tensor.reshape({-1}));
  const at::Tensor sum = at::cat(flat);
  group_->AllReduceSum(sum, kind).Wait();
  int64_t at = 0;
  for (at::Tensor& tensor : tensors) {
    tensor.copy_(sum.narrow(0, at, tensor.numel()).view(tensor.sizes()));
    at += tensor.numel();
  }
}

std::vector<double> Sharding::SumSquares(std::vector<double> squares) {
  if (group_ != nullptr && !reducer_) {
    const auto all = shards_->GatherNumbers(squares);
    for (size_t i = 0; i < squares.size(); ++i) {
      if (i >= whole_.size() || !spread(i)) continue;  // All ranks have the same.
      squares[i] = 0;
      for (const std::vector<double>& of_rank : all) squares[i] += of_rank[i];
    }
  }
  if (!tensor_) return squares;
  const auto all = tensor_->GatherNumbers(squares);
  for (size_t i = 0; i < squares.size(); ++i) {
    squares[i] = all[0][i];
    if (i >= slices_.size() || slices_[i].empty()) continue;
    for (size_t rank = 1; rank < all.size(); ++rank) squares[i] += all[rank][i];
  }
  return squares;
}

void Sharding::AfterUpdate() {
  ValuesLoaded();
  if (group_ == nullptr || reducer_) return;
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < whole_.size(); ++i) {
    if (!spread(i) || rows_only_[i]) continue;
    const int64_t most = splits_[i].most(), k = whole_[i].value.size(1);
    at::Tensor mine = at::empty({most, k}, owned_[i].value.options());
    const at::Tensor all = at::empty({shards_->size() * most, k}, mine.options());
    const int64_t rows = owned_[i].value.size(0);
    mine.narrow(0, 0, rows).copy_(owned_[i].value);
    mine.narrow(0, rows, most - rows)
        .zero_();  // Nobody reads it; a dry run's others are made of it
    shards_->AllGather(mine, all, "values").Wait();
    for (int rank = 0; rank < shards_->size(); ++rank) {
      const int64_t theirs = splits_[i].rows(rank);
      whole_[i]
          .value.narrow(0, splits_[i].first(rank), theirs)
          .copy_(all.narrow(0, rank * most, theirs));
    }
  }
}

void Sharding::ValuesLoaded() {
  if (codes_) codes_->Invalidate();
  if (tensor_codes_) tensor_codes_->Invalidate();
}

void Sharding::DropGradients() {
  for (model::Parameter& parameter : whole_) parameter.value.mutable_grad() = at::Tensor();
  for (model::Parameter& parameter : owned_) parameter.value.mutable_grad() = at::Tensor();
}

}  // namespace tern::train
