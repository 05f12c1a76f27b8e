// The binary contract between the native host and a plugin library: plain C
// data and function pointers, nothing else.
//
// No string, container, exception or allocation of one side is ever touched by
// the other, so a plugin may be built with another compiler or standard library
// than the host.  Plugin authors never use this file; plugin.h is theirs.
// Everything here is called on the host's one thread.
//
// Any change of layout or meaning raises kVersion, and with it three names: that of the entry point, that of
// the note (plugin.h) and the inline namespace of the SDK, so that objects of two versions do not link.  A
// host takes its own version only and refuses others in a sentence, before any of their code runs: plugins
// are rebuilt, not adapted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace bulkhead::abi {

inline constexpr std::uint32_t kVersion = 5;
inline constexpr const char* kEntryPoint = "bulkhead_plugin_v5";

// ----- The ELF note: what is known of a library before its first byte runs -----

inline constexpr std::uint32_t kNoteType = 1;

// The one entry of section .note.bulkhead, in the layout of an ELF note.
struct Note {
  std::uint32_t name_bytes;
  std::uint32_t descriptor_bytes;
  std::uint32_t type;
  char name[12];  // "bulkhead", as in kNoteName
  std::uint32_t version;
  char compiler[60];  // for people: "gcc 12.2.0 libstdc++"
};
inline constexpr std::string_view kNoteName{"bulkhead"};
static_assert(sizeof(Note) == 88);

// ----- Values -----

// Not terminated; belongs to whoever passes it, for the time of the call.
struct Text {
  const char* data;
  std::size_t size;
};
inline Text text(std::string_view view) { return {view.data(), view.size()}; }
inline std::string_view view(Text text) {
  return text.size == 0 ? std::string_view{} : std::string_view{text.data, text.size};
}

enum class DType : std::int32_t {
  kBool,
  kUInt8,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
};

struct Tensor {
  Text name;
  DType dtype;
  std::int32_t dims;
  const std::int64_t* shape;
  const std::int64_t* strides;  // in elements
  const void* data;
  void* writable = nullptr;  // inputs: the same bytes where the plugin may change them
};

struct Metric {
  Text name;
  double value;
};

// One node of a tree: constructor arguments (`with`), the run's configuration, changes to it, rows of a data
// set.
struct Value {
  enum class Kind : std::int32_t { kNull, kBool, kInt, kFloat, kText, kList, kMap };
  Kind kind;
  std::int64_t integer;  // kInt; kBool: 0 or 1
  double real;           // kFloat
  Text text;             // kText
  std::size_t count;     // kList, kMap
  const Value* items;    // `count` of them
  const Text* keys;      // kMap: `count` of them
};

// What stays the same for an incarnation.
struct Facts {
  std::int64_t rank;
  std::int64_t local_rank;
  std::int64_t node_rank;
  std::int64_t world_size;
  std::int64_t local_world_size;
  std::int64_t generation;
  std::int64_t run_seed;
  std::int32_t is_distributed;
  std::int32_t is_main;
  Text device;
  Text scope;
  Text project;
  Text run_dir;
  Text plugin;
  std::size_t map_loc_count;
  const Text* map_loc_from;
  const Text* map_loc_to;
};

// One call of one hook.
struct Call {
  Text hook;
  std::int64_t epoch;
  std::int64_t global_step;
  std::int64_t step_in_epoch;
  std::int64_t epoch_length;
  std::int64_t max_steps;
  std::int64_t max_epochs;
  std::int64_t micro_batch;
  double lr;
  double grad_norm;
  std::int32_t has_best_metric;
  std::int32_t replaying;
  double best_metric;
  Text call_id;
  std::size_t metric_count;
  const Metric* metrics;
  std::uint64_t rng_key[2];
  std::size_t tensor_count;  // transforms
  const Tensor* tensors;
  std::int32_t device;  // −1; else the GPU on which `tensors` lie, as CUDA counts: their data is the GPU's
  Text state;           // load_state_dict
  Text exception;       // on_exception
  const Value* config;  // configure; else nullptr
  // Sample hooks, one call for each sample: its number (else -1), what belongs to it.  `tensors` is then its
  // image (uint8 [H,W,3]), unless the batch has none.
  // keep, encode: one call for each row, `sample` is its number.
  std::int64_t sample;
  Text path;
  Text caption;
  // preprocess: a map of columns, lists of equal length.  keep, encode: the row, a map.  Else nullptr.
  const Value* rows;
  // collate: `tensors` holds for each sample its input_ids and its labels, int64 [T], in turn.
};

// What came of asking.
struct Answer {
  enum class Kind : std::int32_t {
    kAnswered,
    kFailed,   // the rank could not; `message` is its sentence
    kAborted,  // nobody waits for this call any more: the plugin must come back without a word
  };
  Kind kind;
  Text type;
  Text message;
  std::size_t tensor_count;
  const Tensor* tensors;  // until the call returns
};

// What `allocate` gives.
struct Memory {
  void* data;  // nullptr: there is none to be had
  void* owner;
  void (*release)(void* owner);  // once, on any thread
};

inline constexpr std::uint32_t kStop = 1;
inline constexpr std::uint32_t kStopEpoch = 2;
inline constexpr std::uint32_t kSave = 4;
inline constexpr std::uint32_t kValidate = 8;
inline constexpr std::uint32_t kLog = 16;

// What a plugin may say while it is constructed or called.  None of these
// throws; what they are given they copy, except owned bytes.
struct Host {
  void* self;
  // An exception left the plugin.  At most once, instead of any answer.
  // fatal: it is one of those that end the run.
  void (*fail)(void* self, Text type, Text message, std::int32_t fatal);
  // Construction only: argument `key` is wrong.  `candidates` are names among
  // which the person may have meant one; the host adds the nearest.
  void (*refuse)(void* self, Text key, Text message, const Text* candidates, std::size_t count);
  // Flags of kStop …, and the reason of a stop.
  void (*control)(void* self, std::uint32_t flags, Text reason);
  // Transforms: this input tensor is taken over as it is.
  void (*keep)(void* self, Text name);
  // Transforms: a dense tensor; notify hooks: a parameter to load.  One of the
  // same name replaces the one before.  The host owns `owner` from here on and calls
  // release(owner) once, on any thread, when the bytes are sent.
  void (*put)(void* self, const Tensor* tensor, void* owner, void (*release)(void* owner));
  // Transforms: `tensor` is the piece of the input `of` that begins `offset` bytes
  // into it and has these strides, with what is there when the call returns; its
  // `data` is not looked at.
  void (*piece)(void* self, const Tensor* tensor, Text of, std::int64_t offset);
  // state_dict: the bytes, copied.
  void (*state)(void* self, Text bytes);
  // At once, in the middle of the call.
  void (*note)(void* self, Text text, const Metric* metrics, std::size_t count);
  void (*progress)(void* self, const Metric* detail, std::size_t count);
  // A setting of the run.  Gives why not, or an empty text; it is good until the call returns.
  Text (*set)(void* self, Text name, std::int32_t has_value, double value);
  // Why this call may not do `what` (all_gather | weights | load_weights), or an empty text; good as above.
  Text (*objection)(void* self, Text what);
  // Asks the rank (all_gather | weights) and waits for the answer.
  Answer (*ask)(void* self, Text what, Text bytes);
  // transform_caption, transform_sample: the sample's caption from here on.
  void (*caption)(void* self, Text text);
  // configure: a map of changes, copied.
  void (*configured)(void* self, const Value* changes);
  // Transforms: memory, aligned to 64, with whatever is in it.  What lies at its beginning is put() without a
  // copy.  Where the call's tensors lie on a GPU: memory of that, zeros.
  Memory (*allocate)(void* self, std::size_t bytes);
  // preprocess: the columns, copied.
  void (*rows)(void* self, const Value* columns);
  // keep: whether the row stays.
  void (*verdict)(void* self, std::int32_t keep);
  // encode: a row's tokens and as many labels, copied.
  void (*encoded)(void* self, const std::int64_t* input_ids, const std::int64_t* labels, std::size_t count);
};

// What a library exports: its one plugin.
struct Table {
  std::uint32_t version;
  std::int32_t steers;
  std::int32_t stateless;
  std::int32_t seeded;
  Text class_name;
  std::size_t hook_count;  // the overridden ones
  const Text* hooks;
  std::size_t claim_count;
  const Text* claims;
  // nullptr after fail() or refuse().
  void* (*create)(const Facts* facts, const Value* with, const std::uint64_t rng_key[2], const Host* host);
  void (*call)(void* plugin, const Facts* facts, const Call* call, const Host* host);
  void (*destroy)(void* plugin);
};

// extern "C" const Table* bulkhead_plugin_v5();
using EntryPoint = const Table* (*)();

}  // namespace bulkhead::abi
