// In place of communicator_nccl.cpp where CUDA is off.
#include "communicator.h"

namespace bulkhead {

Result<std::unique_ptr<Communicator>> make_nccl_communicator(const Rendezvous&, const CommunicatorOptions&) {
  return Error{ErrorCode::kUnavailable,
               "this build has no CUDA: use train.device: cpu, or build with -DBULKHEAD_CUDA=ON"};
}

}  // namespace bulkhead
