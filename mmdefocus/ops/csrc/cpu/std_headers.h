// The standard headers of the vectorised kernels. They are included before any `#pragma GCC target`, so that their
// inline functions never hold instructions that the processor may lack.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
