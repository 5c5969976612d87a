// How parameters, gradients and optimizer state are spread over the ranks of a training, and how
// they come together: the one place that knows parallel.shard and parallel.tensor. Rows of matrices
// are spread, norms and biases never are. One process: nothing is spread and nothing is sent.
//   none   gradients are summed by libtorch's Reducer while backward runs; with fake quantizers or
//          adapters at the end of the step, when these have passed them on
//   zero1  every rank updates its rows of each matrix and gathers the others' new values; gradients
//          are exchanged once a step (ZeRO-1 of arXiv 1910.02054)
//   zero2  as zero1, and gradients are exchanged and dropped after each micro-batch
//   zero3  as zero2, and of BitLinear matrices a rank holds its rows only (gathered_codes.h)
// With parallel.shard_size (hybrid; arXiv 2304.11277, section 3.2.2) all this is done among so many
// ranks next to each other, and groups of them hold the same: their sums are added in fp32 once a
// step.
// With parallel.tensor (plan/tensor_split.h) a rank's parameters of attention and FFN are slices of
// their own, with gradients and moments, and all of the above is done to them among the ranks that
// hold the same slices, the data group. What is not cut has the same gradient on all ranks of a
// tensor group, because they run the same sequences.
// An exchange sends each rank its rows' gradients from all ranks and adds them in rank order in
// fp32, so that every number of micro-batches and every strategy adds in an order of its own that
// never changes.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "model/decoder.h"
#include "parallel/group.h"
#include "parallel/matrix_slice.h"
#include "parallel/reducer.h"
#include "parallel/row_split.h"
#include "recipe/recipe.h"
#include "train/gathered_codes.h"
#include "train/tensor_codes.h"

namespace tern::train {

class Sharding {
 public:
  // group: null for one process; else all ranks call together. zero3 replaces the decoder's
  // BitLinear matrices by this rank's rows, parallel.tensor what is cut by its slices. Both must
  // outlive this; the decoder's values are not looked at yet. Throws RecipeError when
  // parallel.shard_size or parallel.tensor does not divide the ranks. has_late_gradients: some are
  // made after the step's last backward pass; those of shard: none are then summed at the end.
  // Parameters that require no gradient are left as they are.
  Sharding(parallel::Group* group, const recipe::ParallelConfig& config, model::Decoder* decoder,
           bool has_late_gradients = false);
  ~Sharding();

  // One for each parameter of the decoder: what this rank updates, and whose moments it keeps.
  const std::vector<model::Parameter>& owned() const { return owned_; }
  // Where the owned part lies in the whole. Of what is neither spread nor cut, every rank owns all.
  model::Place owned_place(size_t parameter) const;
  // Where the decoder's own value lies in the whole.
  model::Place place(size_t parameter) const;
  bool spread(size_t parameter) const { return !splits_[parameter].begin.empty(); }
  // Whether the decoder's own value is this rank's rows only.
  bool holds_rows_only(size_t parameter) const { return rows_only_[parameter]; }

  // What this rank writes into a checkpoint of a tensor like the owned part: rows of the whole,
  // from `first` on. A collective for slices along columns, which come together as rows. The rows
  // may be the tensor's own memory.
  struct SavedRows {
    at::Tensor rows;
    int64_t first = 0;
  };
  SavedRows RowsToSave(size_t parameter, const at::Tensor& owned) const;
  // The same of a tensor beside the decoder's parameters, which all ranks have.
  SavedRows RowsToSave(const at::Tensor& common) const;

  // Axes of the ranks; one process: 0 of 1. Ranks of one tensor group run the same sequences.
  int data_rank() const { return group_ == nullptr ? 0 : group_->rank(); }
  int data_ranks() const { return group_ == nullptr ? 1 : group_->size(); }
  parallel::Group* data_group() const { return group_; }           // Null: one
  parallel::Group* tensor_group() const { return tensor_.get(); }  // Null: one

  nn::WeightSource* source();  // For the decoder's forward, as
  nn::TensorGroup* tensor() { return exchange_.get(); }
  // Makes what forward needs of the values as they are now. Called by all ranks.
  void PrepareForward();
  void BeforeBackward(bool last);
  // After the last backward pass of a step: the owned parts' .grad hold the sums over all ranks.
  void FinishGradients();
  // Sums .grad of parameters beside the decoder's, which all ranks have, over the data ranks.
  void SumGradients(const std::vector<model::Parameter>& common);
  // From the squares of the 2-norms of the owned gradients to those of the whole ones, same bits on
  // every rank.
  std::vector<double> SumSquares(std::vector<double> squares);
  // After the optimizer's update: gathers the others' new values.
  void AfterUpdate();
  // The decoder's values are new on all ranks: a checkpoint was loaded, or they were initialised.
  void ValuesLoaded();
  void DropGradients();

 private:
  struct Exchange {
    size_t parameter;
    at::Tensor received;  // [ranks, rows, K]
    parallel::Pending pending;
  };
  void Cut(parallel::Group& ranks, model::Decoder* decoder);
  void Spread(model::Decoder* decoder);
  SavedRows JoinColumns(size_t parameter, const SavedRows& mine) const;
  void StartExchange(size_t parameter, const at::Tensor& grad);
  void FinishExchange();
  void SumReplicas();
  void SumSmallGradients();
  // Sums what of `tensors` is defined over the data ranks, in place, all in one piece.
  void SumTogether(std::vector<at::Tensor> tensors, const char* kind);

  parallel::Group* ranks_;  // All of them
  // With parallel.tensor, else null: the ranks that share this one's products, and those with the
  // same slices.
  std::unique_ptr<parallel::Group> tensor_, data_;
  parallel::Group* group_;  // data_ or all ranks; null when that is one
  // Hybrid, else null: the ranks among which this one spreads its state, and those of the other
  // groups that hold the same rows.
  std::unique_ptr<parallel::Group> part_, replicas_;
  parallel::Group* shards_;  // part_, or group_
  recipe::ParallelConfig config_;
  std::vector<model::Parameter> whole_;  // The decoder's
  std::vector<model::Parameter> owned_;
  std::vector<parallel::RowSplit> splits_;  // Empty: not spread
  std::vector<bool> rows_only_;
  std::vector<std::vector<parallel::MatrixSlice>> slices_;  // Empty: not cut
  std::unique_ptr<GatheredCodes> codes_;
  std::unique_ptr<TensorExchange> exchange_;   // With tensor_
  std::unique_ptr<TensorCodes> tensor_codes_;  // As well, of BitLinear matrices
  std::unique_ptr<parallel::GradientReducer> reducer_;
  std::deque<Exchange> exchanges_;
  int64_t bytes_under_way_ = 0;  // Sent, of exchanges that are not finished
  int64_t max_under_way_ = 0;    // Gradients are whole matrices and would add up to the model.
  bool last_ = true;             // The backward pass that runs is the step's last
};

}  // namespace tern::train
