// Vectors: FIPS 180-4 examples (NIST CSRC).
#include "protocol/sha256.h"

#include <algorithm>
#include <string>

#include <gtest/gtest.h>

namespace bulkhead {
namespace {

TEST(Sha256, GivesTheStandardsAnswers) {
  EXPECT_EQ(to_hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(to_hex(sha256(std::string(1'000'000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnHowTheBytesAreCut) {
  const std::string text(1000, 'a');
  Sha256 hash;
  for (std::size_t at = 0, size = 0; at < text.size(); at += size) {
    size = std::min<std::size_t>(at / 3 + 1, text.size() - at);
    hash.update(text.data() + at, size);
  }
  hash.update(nullptr, 0);
  EXPECT_EQ(hash.finish(), sha256(text));
}

}  // namespace
}  // namespace bulkhead
