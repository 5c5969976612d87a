// See engine.h.
#include "engine/engine.h"

#include <utility>

#include "engine/weight_table.h"

namespace tern::engine {

Engine::Engine(ModelWeights weights, int num_threads)
    : weights_(std::move(weights)), pool_(num_threads), parallel_(pool_.Runner()) {
  CheckSizes(weights_);
  for (LayerWeights& layer : weights_.layers) {
    for (LinearMatrix* matrix :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      if (auto* blocks = std::get_if<BlockMatrix>(matrix)) MoveToHugePages(blocks);
    }
  }
  TableMatrix& head = weights_.head ? *weights_.head : weights_.embedding;
  if (auto* blocks = std::get_if<BlockMatrix>(&head)) MoveToHugePages(blocks);
}

}  // namespace tern::engine
