// Tiles of keys and values in shared memory, and their copy from the cache.
#pragma once

#include "cache.cuh"

// Rows of DIM numbers in shared memory, made of 16-byte chunks. The eight rows that ldmatrix reads at once
// must lie in different banks. Rows that fill all banks have their chunks permuted by the row; other rows are
// padded to an odd number of chunks.
template <class T, int DIM>
struct SharedRows {
    static constexpr int IN_CHUNK = 16 / sizeof(T);
    static constexpr int CHUNKS = DIM / IN_CHUNK;
    static constexpr bool PERMUTED = CHUNKS % 8 == 0;
    static constexpr int PITCH = (PERMUTED ? CHUNKS : CHUNKS | 1) * IN_CHUNK;  // elements

    // The place of a chunk of a row, in elements.
    static DEVICE u32 place(u32 row, u32 chunk) {
        return row * PITCH + (PERMUTED ? chunk ^ (row % 8) : chunk) * IN_CHUNK;
    }
    // The place of the same chunk `i` rows on. PRECOND: the row is a multiple of 8, or of a power of two
    // greater than `i`.
    static DEVICE u32 neighbour(u32 place, u32 i) {
        return (PERMUTED ? place ^ (i % 8 * IN_CHUNK) : place) + i * PITCH;
    }
    static DEVICE T* chunk(T* rows, u32 row, u32 chunk) { return rows + place(row, chunk); }
    static DEVICE const T* chunk(const T* rows, u32 row, u32 chunk) {
        return SharedRows::chunk(const_cast<T*>(rows), row, chunk);
    }
};

// Keys and values of one tile in shared memory, with their scales if the format has scales.
template <class T, int DIM, int KEYS>
struct KeyTile {
    using Rows = SharedRows<T, DIM>;
    static constexpr int SCALES = IS_SCALED<T> ? 2 * KEYS : 0;
    static constexpr int BYTES = 2 * KEYS * Rows::PITCH * sizeof(T) + SCALES * sizeof(float);

    T* keys;        // [KEYS, DIM]
    T* values;      // [KEYS, DIM]
    float* scales;  // [2, KEYS]: of keys, of values

    DEVICE explicit KeyTile(unsigned char* shared)
        : keys(reinterpret_cast<T*>(shared)),
          values(keys + KEYS * Rows::PITCH),
          scales(reinterpret_cast<float*>(values + KEYS * Rows::PITCH)) {}

    // The scales of the keys (plane 0) or values (plane 1) in columns 2 (lane % 4) + {0, 1} of the n-th
    // eight.
    DEVICE Vec<float, 2> scale(u32 plane, u32 n, u32 lane) const {
        if constexpr (IS_SCALED<T>) return load_vec<2>(scales + plane * KEYS + n * 8 + lane % 4 * 2);
        return {{1, 1}};
    }
};

enum class Planes { KEYS, VALUES, BOTH };

// Rows of keys that lie in one block of the cache follow each other, and need one address together.
constexpr u32 LONGEST_RUN = 4;

// One of THREADS threads that copy tiles from the cache. What it needs in every tile is computed once.
template <class T, int DIM, int KEYS, int THREADS>
struct Copier {
    using Tile = KeyTile<T, DIM, KEYS>;
    using Rows = SharedRows<T, DIM>;
    static constexpr u32 CHUNKS = Rows::CHUNKS, COUNT = KEYS * CHUNKS;
    static constexpr u32 OWN = COUNT / THREADS, RUN = OWN < LONGEST_RUN ? OWN : LONGEST_RUN;
    // Whether a thread can copy one chunk of OWN consecutive rows.
    static constexpr bool TAKES_RUNS =
        THREADS % CHUNKS == 0 && COUNT % THREADS == 0 && OWN % RUN == 0 && LONGEST_RUN % RUN == 0;

    const AttentionParams& p;
    u32 thread, to_value, row_bytes;
    u32 first;                  // the first of the thread's rows
    u32 place;                  // the place of its chunk in this row of a tile
    const unsigned char* from;  // its chunk in row 0 of the cache

    DEVICE Copier(const AttentionParams& p, u32 to_value, u32 thread)
        : p(p),
          thread(thread),
          to_value(to_value),
          row_bytes(p.head_dim * sizeof(T)),
          first(in_register(thread / CHUNKS * OWN)),
          place(in_register(Rows::place(thread / CHUNKS * OWN, thread % CHUNKS))),
          from(in_register(static_cast<const unsigned char*>(p.cache) + thread % CHUNKS * 16)) {}

    // Begins the copy of planes of the keys and values at `rows[KEYS]` of the cache. If `in_runs`, each
    // LONGEST_RUN of these rows follow each other in the cache.
    template <Planes PLANES>
    DEVICE void copy(const Tile& to, const u32* rows, bool in_runs) const {
        if (TAKES_RUNS && in_runs) {
#pragma unroll
            for (u32 run = 0; run < OWN; run += RUN) {
                const u32 row = rows[first + run];
                const unsigned char* const key = from + u64(row) * row_bytes;
                const unsigned char* const value = from + u64(row + to_value) * row_bytes;
#pragma unroll
                for (u32 i = 0; i < RUN; ++i)
                    copy_chunk<PLANES>(to, Rows::neighbour(place, run + i), key + i * DIM * sizeof(T),
                                       value + i * DIM * sizeof(T));
            }
        } else {
#pragma unroll 2
            for (u32 index = thread; index < COUNT; index += THREADS) {
                const u32 row = index / CHUNKS, chunk = index % CHUNKS;
                const unsigned char* const column = static_cast<const unsigned char*>(p.cache) + chunk * 16;
                copy_chunk<PLANES>(to, Rows::place(row, chunk), column + u64(rows[row]) * row_bytes,
                                   column + u64(rows[row] + to_value) * row_bytes);
            }
        }
        if constexpr (IS_SCALED<T>) copy_scales<PLANES>(to, rows);
    }

    template <Planes PLANES>
    DEVICE void copy_chunk(const Tile& to, u32 place, const unsigned char* key,
                           const unsigned char* value) const {
        T* const chunk = to.keys + place;
        if (PLANES != Planes::VALUES) cp_async16(chunk, key);
        if (PLANES != Planes::KEYS) cp_async16(chunk + KEYS * Rows::PITCH, value);
    }

    template <Planes PLANES>
    DEVICE void copy_scales(const Tile& to, const u32* rows) const {
        constexpr u32 FIRST = PLANES == Planes::VALUES ? KEYS : 0,
                      SCALES = PLANES == Planes::BOTH ? 2 * KEYS : KEYS;
        static_assert(SCALES <= THREADS, "a thread copies one scale");
        const u32 scale = FIRST + thread;
        if (thread < SCALES)
            cp_async4(to.scales + scale, p.scales + (rows[scale % KEYS] + scale / KEYS * to_value));
    }
};
