// Names inside model.h5 that writer and reader share; docs/formats/model_file.md documents them.
#pragma once

#include <string>
#include <string_view>

#include "engine/scaled_matrix.h"
#include "formats/block_codec.h"
#include "h5/h5.h"

namespace tern::engine {

inline constexpr char kModelFileFormat[] = "tern.model";
inline constexpr int64_t kModelFileVersion = 1;
inline constexpr char kModelJson[] = "/model_json";  // Bytes of UTF-8 JSON
inline constexpr char kTensorGroup[] = "/model/";
inline constexpr char kFileGroup[] = "/files/";

// Attributes of a tensor.
inline constexpr char kTypeAttribute[] = "type";  // F32, F16, BF16, Q4_0 ... Q6_K, T2, INT4, ...
inline constexpr char kSha256Attribute[] = "sha256";
inline constexpr char kColumnsAttribute[] = "columns";  // K, where rows are bytes
inline constexpr char kBlockRowsAttribute[] = "block_rows",
                      kBlockColumnsAttribute[] = "block_columns";

// Of a matrix whose inputs are to be rounded (InputRounding): how, columns that share a scale, and
// the scale of all tokens as a decimal.
inline constexpr char kInputsAttribute[] = "inputs", kInputGroupAttribute[] = "input_group",
                      kInputScaleAttribute[] = "input_scale";
struct InputCodeName {
  InputRounding::Code code;
  std::string_view name;
};
inline constexpr InputCodeName kInputCodes[] = {{InputRounding::Code::kInt8, "INT8"},
                                                {InputRounding::Code::kFp8E4m3, "F8_E4M3"},
                                                {InputRounding::Code::kOther, "other"}};

inline constexpr char kTernaryType[] = "T2";
inline constexpr char kScaleSuffix[] = "_scale", kZeroPointSuffix[] = "_zero_point";

// Ends of a mapped tensor that kernels want aligned.
inline constexpr int64_t kTensorAlignment = 64;

struct ScaledTypeName {
  ScaledCode code;
  std::string_view name;
};
inline constexpr ScaledTypeName kScaledTypes[] = {
    {ScaledCode::kInt4, "INT4"}, {ScaledCode::kInt8, "INT8"}, {ScaledCode::kFp8E4m3, "F8_E4M3"}};
struct FloatTypeName {
  ScaleType scale;
  formats::GgmlType ggml;
  h5::Type h5;  // HDF5 1.10 has no BF16: its bits as integers
  std::string_view name;
};
inline constexpr FloatTypeName kFloatTypes[] = {
    {ScaleType::kF32, formats::GgmlType::kF32, h5::Type::kF32, "F32"},
    {ScaleType::kF16, formats::GgmlType::kF16, h5::Type::kF16, "F16"},
    {ScaleType::kBf16, formats::GgmlType::kBf16, h5::Type::kU16, "BF16"}};

}  // namespace tern::engine
