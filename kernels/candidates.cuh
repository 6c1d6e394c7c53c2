// The words about candidates whose logits of the amateur are computed one by one: contrast_sample.cu lists
// the candidates, contrast_project.cu computes their logits. The candidates of a row are the tokens of its
// plausible set.
#pragma once

#include "step.cuh"

// One candidate of one row.
struct alignas(16) CandidateEntry {
    u32 row, id;
    float expert, amateur;  // the token's logits
};
MIRRORED(CandidateEntry);

// The candidates of one row among all entries.
struct CandidateList {
    u32 first;
    u32 size;  // NONE: all of the row's logits of the amateur are computed instead
};
MIRRORED(CandidateList);

// How many entries and rows the kernel contrast_candidates found.
struct CandidateCounts {
    u32 entries;
    u32 full_row_offsets[2];  // 0 and the number of full rows: the offsets of one group of a grouped product
    u32 unused;
};
MIRRORED(CandidateCounts);

// Where the kernels find these. All pointers are null where all of the amateur's logits are there.
struct CandidateBuffers {
    CandidateList* lists;     // [rows]
    CandidateEntry* entries;  // [rows * capacity]
    CandidateCounts* counts;  // [1]
    u32* full_rows;           // [counts->full_row_offsets[1]]: rows that need all of their logits
};
MIRRORED(CandidateBuffers);
