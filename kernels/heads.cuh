// Heads whose logits of the amateur are computed one by one: found by contrast_sample.cu, computed by contrast_project.cu.
#pragma once

#include "step.cuh"

// A token of a row's head.
struct alignas(16) HeadEntry {
    u32 row, id;
    float expert, amateur;  // its logits
};

// A row's head.
struct HeadWords {
    u32 first, size;  // among the entries; or size NONE: all of the row's logits of the amateur are there instead
};

struct HeadCounts {
    u32 entries;
    u32 full[2];  // 0, and how many rows turned out to need all of their logits: a group of a grouped product
    u32 unused;
};
