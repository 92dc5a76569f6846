// What a value is: element types, shapes, storage, tensors, random numbers, errors, threads.
#pragma once

#include "weft/core/config.hpp"
#include "weft/core/device.hpp"
#include "weft/core/dtype.hpp"
#include "weft/core/error.hpp"
#include "weft/core/parallel.hpp"
#include "weft/core/philox.hpp"
#include "weft/core/print.hpp"
#include "weft/core/scratch.hpp"
#include "weft/core/shape.hpp"
#include "weft/core/simd.hpp"
#include "weft/core/slot.hpp"
#include "weft/core/spin_lock.hpp"
#include "weft/core/storage.hpp"
#include "weft/core/tensor.hpp"
#include "weft/core/view.hpp"
#include "weft/core/where.hpp"
