// One dataset whose rows lie in several files; and rows of any dataset.
#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>

#include "base/error.h"
#include "h5/h5.h"
#include "tests/testing/temp_folder.h"

namespace tern::h5 {
namespace {

constexpr int64_t kColumns = 3;

std::vector<float> Rows(int64_t first, int64_t rows) {
  std::vector<float> values(static_cast<size_t>(rows * kColumns));
  std::iota(values.begin(), values.end(), static_cast<float>(first * kColumns));
  return values;
}

// 7 rows: 4 in a.h5, none in b.h5, 3 in c.h5; a vector of 5 in a.h5 and c.h5.
void Write(const std::string& folder) {
  File a = File::Create(folder + "/a.h5"), c = File::Create(folder + "/c.h5"),
       all = File::Create(folder + "/all.h5");
  a.Write("/g/x", Type::kF32, {4, kColumns}, Rows(0, 4).data());
  c.Write("/g/x", Type::kF32, {3, kColumns}, Rows(4, 3).data());
  const int64_t numbers[] = {1, 2, 3, 4, 5};
  a.Write("/v", Type::kI64, {2}, numbers);
  c.Write("/v", Type::kI64, {3}, numbers + 2);
  all.CreateVirtual("/g/x", Type::kF32, {7, kColumns},
                    {{"a.h5", "/g/x", 0, 4}, {"b.h5", "/g/x", 4, 0}, {"c.h5", "/g/x", 4, 3}});
  all.CreateVirtual("/v", Type::kI64, {5}, {{"a.h5", "/v", 0, 2}, {"c.h5", "/v", 2, 3}});
  a.Close();
  c.Close();
  all.Close();
}

TEST(VirtualTest, ReadsAsOneDatasetWhereverTheFolderIs) {
  const testing::TempFolder folder;
  std::filesystem::create_directories(folder / "before");
  Write(folder / "before");
  std::filesystem::rename(folder / "before", folder / "after");
  const File file = File::OpenForReading(folder / "after/all.h5");
  EXPECT_EQ(file.Info("/g/x").shape, (std::vector<int64_t>{7, kColumns}));
  std::vector<float> values(7 * kColumns);
  file.Read("/g/x", Type::kF32, values.data(), static_cast<int64_t>(values.size() * sizeof(float)));
  EXPECT_EQ(values, Rows(0, 7));
  std::vector<int64_t> numbers(5);
  file.Read("/v", Type::kI64, numbers.data(), 40);
  EXPECT_EQ(numbers, (std::vector<int64_t>{1, 2, 3, 4, 5}));
}

TEST(VirtualTest, RowsOfVirtualAndPlainDatasets) {
  const testing::TempFolder folder;
  Write(folder.path());
  const File all = File::OpenForReading(folder / "all.h5"),
             plain = File::OpenForReading(folder / "a.h5");
  for (int64_t first = 0; first <= 7; ++first) {
    for (int64_t rows = 0; first + rows <= 7; ++rows) {
      std::vector<float> values(static_cast<size_t>(rows * kColumns));
      all.ReadRows("/g/x", Type::kF32, {7, kColumns}, first, rows, values.data());
      EXPECT_EQ(values, Rows(first, rows)) << first << " + " << rows;
    }
  }
  std::vector<float> two(2 * kColumns);
  plain.ReadRows("/g/x", Type::kF32, {4, kColumns}, 1, 2, two.data());
  EXPECT_EQ(two, Rows(1, 2));
  EXPECT_THROW(plain.ReadRows("/g/x", Type::kF32, {7, kColumns}, 1, 2, two.data()), FormatError);
}

// HDF5 itself would give zeros.
TEST(VirtualTest, MissingPartIsAnError) {
  const testing::TempFolder folder;
  Write(folder.path());
  std::filesystem::remove(folder / "c.h5");
  const File all = File::OpenForReading(folder / "all.h5");
  std::vector<float> values(7 * kColumns);
  EXPECT_THROW(all.Read("/g/x", Type::kF32, values.data(), 7 * kColumns * 4), Error);
  EXPECT_THROW(all.ReadRows("/g/x", Type::kF32, {7, kColumns}, 3, 2, values.data()), Error);
}

TEST(VirtualTest, PartsMustCoverTheDataset) {
  const testing::TempFolder folder;
  File all = File::Create(folder / "all.h5");
  EXPECT_THROW(all.CreateVirtual("/x", Type::kF32, {3}, {{"a.h5", "/x", 0, 2}}), BugError);
  EXPECT_THROW(
      all.CreateVirtual("/x", Type::kF32, {3}, {{"a.h5", "/x", 0, 1}, {"b.h5", "/x", 2, 1}}),
      BugError);
}

}  // namespace
}  // namespace tern::h5
