// The headers whose inline functions have external linkage. Files that set a target include them first: the linker
// keeps one copy of such a function for the whole library, and that copy must not hold instructions that the processor
// may lack.
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

#include "cpu/common/instruction_sets.h"
