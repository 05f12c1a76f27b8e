// Included by the compiler before every file that uses torch (Torch.cmake).
//
// torch's logging header defines a macro CHECK, which throws, and whichever of
// the two headers came last would decide what our CHECK does.  Here torch's
// comes first and is taken away again, so protocol/result.h always wins.
#pragma once

#include <c10/util/Logging.h>
#undef CHECK
