// What a training program needs around its loop: data, progress, metrics, report.
#pragma once

#include "weft/train/batches.hpp"
#include "weft/train/chart.hpp"
#include "weft/train/metrics.hpp"
#include "weft/train/progress.hpp"
#include "weft/train/report.hpp"
#include "weft/train/roof.hpp"
#include "weft/train/signals.hpp"
#include "weft/train/text.hpp"
