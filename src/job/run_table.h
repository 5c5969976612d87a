// Several finished runs beside each other: runs of one recipe name that differ in their seeds are
// one setting, with mean and confidence interval.
#pragma once

#include <string>
#include <vector>

namespace tern::job {

struct RunTable {
  std::string markdown;    // A row a setting
  std::string curves_svg;  // Validation loss over steps, the mean of each setting's seeds
};

// `folders` are run folders whose trainings are done; the settings keep the order of their first
// run. Throws InputError for a folder that is no run, has no finished training, or is there with
// the name and the seed of another.
RunTable CompareRuns(const std::vector<std::string>& folders);

}  // namespace tern::job
