# The sentencepiece library (Debian: libsentencepiece-dev) as the target tern::sentencepiece: trainer and processor.
find_path(SENTENCEPIECE_INCLUDE sentencepiece_processor.h REQUIRED)
find_library(SENTENCEPIECE_LIB sentencepiece REQUIRED)
find_library(SENTENCEPIECE_TRAIN_LIB sentencepiece_train REQUIRED)
add_library(tern_sentencepiece INTERFACE)
target_include_directories(tern_sentencepiece SYSTEM INTERFACE ${SENTENCEPIECE_INCLUDE})
target_link_libraries(tern_sentencepiece INTERFACE ${SENTENCEPIECE_TRAIN_LIB} ${SENTENCEPIECE_LIB})
add_library(tern::sentencepiece ALIAS tern_sentencepiece)
