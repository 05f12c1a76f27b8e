// Words of memory that two processes share.  All in one total order: each side
// says something and then looks at what the other says, so that of two at
// least one sees the other.
#pragma once

namespace bulkhead {

template <class Word>
Word read_shared(const Word& word) {
  static_assert(__atomic_always_lock_free(sizeof(Word), nullptr));
  return __atomic_load_n(&word, __ATOMIC_SEQ_CST);
}

template <class Word>
void write_shared(Word& word, Word value) {
  static_assert(__atomic_always_lock_free(sizeof(Word), nullptr));
  __atomic_store_n(&word, value, __ATOMIC_SEQ_CST);
}

}  // namespace bulkhead
