// See model_proto.h.
#include "text/model_proto.h"

#include <cstring>

#include "base/error.h"

namespace tern::text {
namespace {

// ModelProto, SentencePiece, TrainerSpec and NormalizerSpec fields.
enum : uint32_t { kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3 };
enum : uint32_t { kPiece = 1, kScore = 2, kType = 3 };
enum : uint32_t {
  kModelType = 3,
  kVocabSize = 4,
  kByteFallback = 35,
  kUnkId = 40,
  kBosId = 41,
  kEosId = 42,
  kPadId = 43
};
enum : uint32_t {
  kRuleName = 1,
  kCharsMap = 2,
  kDummyPrefix = 3,
  kRemoveSpaces = 4,
  kEscapeSpaces = 5
};
enum : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };  // Wire types
constexpr int64_t kMaxPieces = 1 << 24;

void PutVarint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  out += static_cast<char>(value);
}
void PutNumber(std::string& out, uint32_t field, int64_t value) {
  PutVarint(out, field << 3 | kVarint);
  PutVarint(out, static_cast<uint64_t>(value));  // Negative ids take ten bytes, as protobuf has it.
}
void PutText(std::string& out, uint32_t field, std::string_view text) {
  PutVarint(out, field << 3 | kBytes);
  PutVarint(out, text.size());
  out += text;
}
void PutFloat(std::string& out, uint32_t field, float value) {
  PutVarint(out, field << 3 | kFixed32);
  char bytes[4];
  std::memcpy(bytes, &value, 4);
  out.append(bytes, 4);
}

struct Field {
  uint32_t number = 0, wire = 0;
  uint64_t value = 0;      // kVarint
  std::string_view bytes;  // kBytes, kFixed32, kFixed64
};

// Walks the fields of one message.
class Fields {
 public:
  Fields(std::string_view message, const std::string& name) : rest_(message), name_(name) {}

  bool Next(Field* field) {
    if (rest_.empty()) return false;
    const uint64_t key = Varint();
    *field = {static_cast<uint32_t>(key >> 3), static_cast<uint32_t>(key & 7), 0, {}};
    switch (field->wire) {
      case kVarint:
        field->value = Varint();
        break;
      case kFixed64:
        field->bytes = Take(8);
        break;
      case kFixed32:
        field->bytes = Take(4);
        break;
      case kBytes:
        field->bytes = Take(Varint());
        break;
      default:
        Fail();
    }
    return true;
  }

 private:
  [[noreturn]] void Fail() const {
    throw FormatError(
        StrCat(name_, " is not a SentencePiece model: its protobuf fields do not add up"));
  }
  std::string_view Take(uint64_t size) {
    if (size > rest_.size()) Fail();
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const unsigned char byte = static_cast<unsigned char>(Take(1)[0]);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    Fail();
  }

  std::string_view rest_;
  const std::string& name_;
};

void ReadPiece(std::string_view message, const std::string& name, PieceTable* table) {
  std::string piece;
  float score = 0;
  auto type = PieceType::kNormal;
  Fields fields(message, name);
  for (Field field; fields.Next(&field);) {
    if (field.number == kPiece && field.wire == kBytes) piece = field.bytes;
    if (field.number == kScore && field.wire == kFixed32)
      std::memcpy(&score, field.bytes.data(), 4);
    if (field.number == kType && field.wire == kVarint)
      type = static_cast<PieceType>(static_cast<int32_t>(field.value));
  }
  table->pieces.push_back(std::move(piece));
  table->scores.push_back(score);
  table->types.push_back(type);
}

void ReadTrainerSpec(std::string_view message, const std::string& name, PieceTable* table) {
  Fields fields(message, name);
  for (Field field; fields.Next(&field);) {
    const int32_t value = static_cast<int32_t>(field.value);
    if (field.number == kModelType) table->kind = static_cast<ModelKind>(value);
    if (field.number == kUnkId) table->unk_id = value;
    if (field.number == kBosId) table->bos_id = value;
    if (field.number == kEosId) table->eos_id = value;
  }
}

void ReadNormalizerSpec(std::string_view message, const std::string& name, PieceTable* table) {
  Fields fields(message, name);
  for (Field field; fields.Next(&field);) {
    if (field.number == kCharsMap && !field.bytes.empty()) {
      throw FormatError(StrCat(
          name,
          ": the tokenizer normalizes text by a table of its own; this version runs tokenizers "
          "with the identity normalization"));
    }
    if (field.number == kDummyPrefix) table->add_space_prefix = field.value != 0;
    if (field.number == kRemoveSpaces) table->remove_extra_whitespaces = field.value != 0;
  }
}

}  // namespace

std::string EncodeModelProto(const PieceTable& table) {
  std::string model;
  for (size_t i = 0; i < table.pieces.size(); ++i) {
    std::string piece;
    PutText(piece, kPiece, table.pieces[i]);
    PutFloat(piece, kScore, table.scores[i]);
    PutNumber(piece, kType, static_cast<int64_t>(table.types[i]));
    PutText(model, kPieces, piece);
  }
  bool bytes = false;
  for (const PieceType type : table.types) bytes = bytes || type == PieceType::kByte;
  std::string trainer;
  PutNumber(trainer, kModelType, static_cast<int64_t>(table.kind));
  PutNumber(trainer, kVocabSize, static_cast<int64_t>(table.pieces.size()));
  PutNumber(trainer, kByteFallback, bytes ? 1 : 0);
  PutNumber(trainer, kUnkId, table.unk_id);
  PutNumber(trainer, kBosId, table.bos_id);
  PutNumber(trainer, kEosId, table.eos_id);
  PutNumber(trainer, kPadId, -1);
  PutText(model, kTrainerSpec, trainer);
  std::string normalizer;
  PutText(normalizer, kRuleName, "identity");
  PutNumber(normalizer, kDummyPrefix, table.add_space_prefix ? 1 : 0);
  PutNumber(normalizer, kRemoveSpaces, table.remove_extra_whitespaces ? 1 : 0);
  PutNumber(normalizer, kEscapeSpaces, 1);
  PutText(model, kNormalizerSpec, normalizer);
  return model;
}

PieceTable DecodeModelProto(std::string_view bytes, const std::string& name) {
  PieceTable table;
  table.kind = ModelKind::kUnigram;  // Defaults of the message
  table.add_space_prefix = table.remove_extra_whitespaces = true;
  Fields fields(bytes, name);
  for (Field field; fields.Next(&field);) {
    if (field.wire != kBytes) continue;
    if (field.number == kPieces) ReadPiece(field.bytes, name, &table);
    if (field.number == kTrainerSpec) ReadTrainerSpec(field.bytes, name, &table);
    if (field.number == kNormalizerSpec) ReadNormalizerSpec(field.bytes, name, &table);
    TERN_CHECK_FORMAT(static_cast<int64_t>(table.pieces.size()) <= kMaxPieces, name,
                      ": too many pieces");
  }
  TERN_CHECK_FORMAT(!table.pieces.empty(), name, " is not a SentencePiece model: it has no pieces");
  return table;
}

}  // namespace tern::text
