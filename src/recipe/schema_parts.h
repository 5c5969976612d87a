// Helpers of the schema's files, and the parts that are described in a file of their own
// (schema_losses.cc). For schema*.cc only.
#pragma once

#include "recipe/schema.h"

namespace tern::recipe {

template <class Enum>
void Choice(FieldVisitor& v, const char* key, Enum& value, ChoiceNames names, const Meta& meta) {
  int index = static_cast<int>(value);
  v.Choice(key, index, names, meta);
  value = static_cast<Enum>(index);
}

// Runs `describe(v, part)` inside the map `key`.
template <class Part, class Function>
void Section(FieldVisitor& v, const char* key, Part& part, const char* why,
             const Function& describe) {
  v.Enter(key, {why});
  describe(v, part);
  v.Leave();
}

void DescribeQuantize(FieldVisitor& v, QuantizeConfig& quantize);
void DescribeQuantizeStage(FieldVisitor& v, QuantizeStage& stage);
void DescribeLora(FieldVisitor& v, LoraConfig& lora);
void DescribeLosses(FieldVisitor& v, LossesConfig& losses);

}  // namespace tern::recipe
