// Protocol values as the plain C data of the plugin ABI.  Each object here
// holds what its abi struct points to, and itself points into the protocol
// value it was made from: that must live on.  Any thread.
#pragma once

#include <deque>
#include <vector>

#include "bulkhead/abi.h"
#include "protocol/messages.h"
#include "protocol/result.h"
#include "protocol/rng.h"

namespace bulkhead {

// Constructor arguments, the run's configuration.
class AbiValue {
 public:
  explicit AbiValue(const Value& value) : root_(convert(value)) {}
  AbiValue(const AbiValue&) = delete;
  AbiValue& operator=(const AbiValue&) = delete;
  const abi::Value& root() const { return root_; }

 private:
  abi::Value convert(const Value& value);

  std::deque<std::vector<abi::Value>> lists_;
  std::deque<std::vector<abi::Text>> keys_;
  abi::Value root_;  // last: made from the two above
};

// The way back.  kMalformed: deeper or longer than the codec carries.
Result<Value> value_of(const abi::Value& value);
// The same for columns of rows, which travel as texts of their own: lists and
// texts of any length, no number that JSON has not.
Result<Value> row_value_of(const abi::Value& value);

class AbiTensors {
 public:
  // `writable`: those that may be changed where they lie, if that can be had.
  // `on_device`: their bytes are a GPU's, and are not looked at.
  explicit AbiTensors(const Batch& batch, const std::vector<std::string>& writable = {},
                      bool on_device = false);
  AbiTensors(const AbiTensors&) = delete;
  AbiTensors& operator=(const AbiTensors&) = delete;
  const std::vector<abi::Tensor>& list() const { return tensors_; }

 private:
  std::vector<std::vector<std::int64_t>> strides_;
  std::vector<abi::Tensor> tensors_;
};

class AbiFacts {
 public:
  // `generation` is this process's own.
  AbiFacts(const Facts& facts, Generation generation);
  AbiFacts(const AbiFacts&) = delete;
  AbiFacts& operator=(const AbiFacts&) = delete;
  const abi::Facts& get() const { return facts_; }

 private:
  std::vector<abi::Text> from_;
  std::vector<abi::Text> to_;
  abi::Facts facts_;
};

class AbiCall {
 public:
  // `device`: the GPU on which its batch lies, −1 for host memory.
  AbiCall(const Call& call, const Philox::Key& key, int device = -1);
  AbiCall(const AbiCall&) = delete;
  AbiCall& operator=(const AbiCall&) = delete;
  const abi::Call& get() const { return call_; }

 private:
  std::vector<abi::Metric> metrics_;
  AbiTensors tensors_;
  abi::Call call_;
};

}  // namespace bulkhead
