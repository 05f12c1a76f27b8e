#include "data/picture.h"

namespace bulkhead {

Result<Picture> decode_picture(std::string_view bytes) {
  if (bytes.empty()) return Error{ErrorCode::kMalformed, "is empty"};
  if (bytes.starts_with("\xFF\xD8\xFF")) return decode_jpeg(bytes);
  if (bytes.starts_with("\x89PNG\r\n\x1A\n")) return decode_png(bytes);
  return Error{ErrorCode::kMalformed, "is neither a JPEG nor a PNG picture"};
}

Status check_picture_size(std::int64_t height, std::int64_t width) {
  if (height < 1 || width < 1) return Error{ErrorCode::kMalformed, "has no pixels"};
  if (width <= kMaxPixels / height) return ok_status();
  return Error{ErrorCode::kMismatch, "has " + std::to_string(width) + "×" + std::to_string(height) +
                                         " pixels; at most " + std::to_string(kMaxPixels / 1'000'000) +
                                         " million are read"};
}

}  // namespace bulkhead
