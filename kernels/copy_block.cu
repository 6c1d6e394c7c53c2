// Copies one block of the cache to another in all layers. It runs before a sequence writes to a block that it
// shares.
//
// Bytes: the block is read and written once.
#include "row.cuh"

struct CopyBlockParams {
    void* cache;      // [layers, blocks, block_bytes]
    u64 layer_bytes;  // blocks * block_bytes
    u64 block_bytes;  // a multiple of 4
    u32 from, to;     // two different blocks
};
MIRRORED(CopyBlockParams);

template <class Word>
DEVICE void copy(const char* from, char* to, u64 bytes) {
    const u64 first = u64(blockIdx.x) * blockDim.x + threadIdx.x, stride = u64(gridDim.x) * blockDim.x;
    for (u64 i = first; i < bytes / sizeof(Word); i += stride) {
        reinterpret_cast<Word*>(to)[i] = reinterpret_cast<const Word*>(from)[i];
    }
}

// PRECOND: blockIdx.y is the layer; blockIdx.x and the threads share its words; cache aligned to 16 bytes.
KERNEL(copy_block, CopyBlockParams, 256, 1) {
    char* const layer = static_cast<char*>(p.cache) + blockIdx.y * p.layer_bytes;
    const char* const from = layer + p.from * p.block_bytes;
    char* const to = layer + p.to * p.block_bytes;
    if (p.block_bytes % sizeof(Vec<u32, 4>) == 0) {
        copy<Vec<u32, 4>>(from, to, p.block_bytes);
    } else {
        copy<u32>(from, to, p.block_bytes);
    }
}
