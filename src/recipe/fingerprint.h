// What a finished stage was made from, so that running a recipe again notices a change: key ->
// value of the stage and of the parts of the recipe it depends on, without the keys that may change
// between two starts.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "recipe/recipe.h"

namespace tern::recipe {

using Fingerprint = std::map<std::string, std::string>;

// prepare: data and seed; train: those, the model and its own keys; others: their own keys.
Fingerprint FingerprintOf(const Recipe& recipe, const Stage& stage);

// A fingerprint that an earlier version may have written, as this one would have: a key of `now`
// that it lacks has its default.
Fingerprint WithNewKeys(const Fingerprint& before, const Fingerprint& now, const Stage& stage);

// "train.steps: was 300, now 100", one line a difference. A larger number of train steps is no
// difference.
std::vector<std::string> Differences(const Fingerprint& before, const Fingerprint& now);

}  // namespace tern::recipe
