// The step's lists as src/device/launch/step.rs lays them out.
#pragma once

#include "prelude.cuh"

// No slot (a row that is padding), no result.
constexpr u32 NONE = 0xffffffff;

// What sampling gave for one output.
struct ResultWords {
    u32 token, status, head;
    float score, expert_log_probability, amateur_log_probability;
};
