// Prepares the output of the q|k|v projection for attention: norms and rotates heads, stores keys and values
// in the cache.
//
// Bytes a token: qkv is read; queries, keys and values are written. Keys are not written back to qkv, because
// attention reads them from the cache.
#include "e4m3.cuh"
#include "row.cuh"
#include "step.cuh"

struct RopeStoreParams {
    const u32* positions;              // [rows]
    const u32* slots;                  // [rows]: block * block_size + place in the block; NONE: padding
    const float* inverse_frequencies;  // [head_dim / 2]
    NormParams query_norm, key_norm;
    void* qkv;      // [rows, query_heads + 2 key_value_heads, head_dim]
    void* cache;    // [blocks, 2, key_value_heads, block_size, head_dim], of one layer
    float* scales;  // [blocks, 2, key_value_heads, block_size]: of a cache of e4m3; null for others
    u32 query_heads, key_value_heads, head_dim, block_size;
    u32 lanes;             // number of lanes that share a head
    float angle_scale;     // factor of sines and cosines
    u32 norms_span_heads;  // whether one norm spans all query heads, and one all key heads
    u32 unused;
};
MIRRORED(RopeStoreParams);

// Sines and cosines of the block's token in shared memory.
struct Angles {
    float* cosines;  // [head_dim / 2]
    float* sines;    // [head_dim / 2]

    // The shared memory after them.
    DEVICE float* end() const { return sines + (sines - cosines); }

    // Angles are computed in f32, as in the models' training.
    DEVICE Angles(const RopeStoreParams& p, u32 position) {
        const u32 half = p.head_dim / 2;
        cosines = reinterpret_cast<float*>(shared_memory());
        sines = cosines + half;
        for (u32 i = threadIdx.x; i < half; i += blockDim.x) {
            float sine, cosine;
            sincosf(float(position) * p.inverse_frequencies[i], &sine, &cosine);
            cosines[i] = cosine * p.angle_scale;
            sines[i] = sine * p.angle_scale;
        }
    }
};

// One head of one token, held by `lanes` lanes. For k < PIECES, a lane holds the N numbers from (lane + lanes
// k) N on of the first half, and the numbers at the same places of the second half.
template <class T, int N, int PIECES>
struct Head {
    u32 half, lane, lanes;
    Floats<N> first[PIECES], second[PIECES];

    template <class F>
    DEVICE void each(F&& f) {
#pragma unroll
        for (int k = 0; k < PIECES; k++) {
            const u32 i = (lane + k * lanes) * N;
            if (i < half) f(i, first[k], second[k]);
        }
    }

    DEVICE void load(const T* from) {
        each([&](u32 i, Floats<N>& a, Floats<N>& b) {
            a = load_floats<N>(from + i);
            b = load_floats<N>(from + half + i);
        });
    }

    template <class C>
    DEVICE void store(C* to) {
        each([&](u32 i, const Floats<N>& a, const Floats<N>& b) {
            store_floats(to + i, a);
            store_floats(to + half + i, b);
        });
    }

    // The sum of squares of the numbers that this lane holds.
    DEVICE float square_sum() {
        float sum = 0;
        each([&](u32, const Floats<N>& a, const Floats<N>& b) {
#pragma unroll
            for (int j = 0; j < N; j++) sum = fmaf(a[j], a[j], fmaf(b[j], b[j], sum));
        });
        return sum;
    }

    // The sum over the head's lanes, in each of them. PRECOND: called by whole warps.
    DEVICE float lane_sum(float x) const {
        for (u32 flip = lanes / 2; flip > 0; flip /= 2) x += __shfl_xor_sync(0xffffffff, x, flip);
        return x;
    }

    // The greatest magnitude_bits of the head, in each of its lanes. PRECOND: called by whole warps.
    DEVICE u32 greatest() {
        u32 found = 0;
        each([&](u32, const Floats<N>& a, const Floats<N>& b) {
#pragma unroll
            for (int j = 0; j < N; j++) found = max(found, max(magnitude_bits(a[j]), magnitude_bits(b[j])));
        });
        for (u32 flip = lanes / 2; flip > 0; flip /= 2)
            found = max(found, __shfl_xor_sync(0xffffffff, found, flip));
        return found;
    }

    DEVICE void divide(float scale) {
        each([&](u32, Floats<N>& a, Floats<N>& b) {
#pragma unroll
            for (int j = 0; j < N; j++) a[j] = in_units(a[j], scale), b[j] = in_units(b[j], scale);
        });
    }

    DEVICE void multiply(const T* weight, float weight_offset, float scale) {
        each([&](u32 i, Floats<N>& a, Floats<N>& b) {
            const Floats<N> of_a = load_floats<N>(weight + i), of_b = load_floats<N>(weight + half + i);
#pragma unroll
            for (int j = 0; j < N; j++) {
                a[j] = a[j] * scale * (of_a[j] + weight_offset);
                b[j] = b[j] * scale * (of_b[j] + weight_offset);
            }
        });
    }

    DEVICE void rotate(const Angles& angles) {
        each([&](u32 i, Floats<N>& a, Floats<N>& b) {
#pragma unroll
            for (int j = 0; j < N; j++) {
                const float cosine = angles.cosines[i + j], sine = angles.sines[i + j], x = a[j];
                a[j] = x * cosine - b[j] * sine;
                b[j] = b[j] * cosine + x * sine;
            }
        });
    }
};

// The sums of squares over all query heads and over all key heads of a token.
struct Squares {
    float queries, keys;
};

// PRECOND: one block a token; `room` is shared memory for two floats a warp.
template <class T, int N, int PIECES>
DEVICE Squares projection_squares(const RopeStoreParams& p, const T* qkv, float* room) {
    Squares squares{0, 0};
    const u32 places = (p.query_heads + p.key_value_heads) * p.lanes;
    for (u32 place = threadIdx.x; place < places; place += blockDim.x) {
        const u32 index = place / p.lanes;
        Head<T, N, PIECES> head{p.head_dim / 2, place % p.lanes, p.lanes, {}, {}};
        head.load(qkv + u64(index) * p.head_dim);
        (index < p.query_heads ? squares.queries : squares.keys) += head.square_sum();
    }
    return {block_sum(squares.queries, room), block_sum(squares.keys, room + blockDim.x / 32)};
}

template <class T, class C, int N, int PIECES>  // activations, cache
DEVICE void rope_store_heads(const RopeStoreParams& p) {
    const u32 row = blockIdx.x, slot = p.slots[row], position = p.positions[row];
    if (slot == NONE) return;
    const u32 heads = p.query_heads + 2 * p.key_value_heads;
    T* const qkv = static_cast<T*>(p.qkv) + u64(row) * heads * p.head_dim;
    const Angles angles(p, position);
    Squares squares{};
    if (p.norms_span_heads) squares = projection_squares<T, N, PIECES>(p, qkv, angles.end());
    __syncthreads();

    // Whole warps stay in the loop, because shuffles need all lanes. Lanes beyond the last head hold nothing.
    const u32 first = blockIdx.y * blockDim.x + threadIdx.x, stride = gridDim.y * blockDim.x;
    for (u32 place = first; place - threadIdx.x % 32 < heads * p.lanes; place += stride) {
        const u32 index = place / p.lanes;
        const bool query = index < p.query_heads, exists = index < heads;
        const bool value = index >= p.query_heads + p.key_value_heads;
        Head<T, N, PIECES> head{exists ? p.head_dim / 2 : 0, place % p.lanes, p.lanes, {}, {}};
        T* const from = qkv + u64(index) * p.head_dim;
        head.load(from);

        const NormParams& norm = query ? p.query_norm : p.key_norm;
        const float of_head = head.lane_sum(head.square_sum());
        if (!value) {
            if (norm.weight) {
                u32 spanned = 1, of_weight = 0;
                float sum = of_head;
                if (p.norms_span_heads) {
                    spanned = query ? p.query_heads : p.key_value_heads;
                    of_weight = query ? index : index - p.query_heads;
                    sum = query ? squares.queries : squares.keys;
                }
                const float scale = 1.0f / sqrtf(sum / float(spanned * p.head_dim) + norm.epsilon);
                const T* const weight = static_cast<const T*>(norm.weight) + of_weight * p.head_dim;
                head.multiply(weight, norm.weight_offset, scale);
            }
            head.rotate(angles);
        }
        const float scale = IS_SCALED<C> ? e4m3_scale(head.greatest()) : 1;
        if (query) {
            head.store(from);
            continue;
        }
        const u32 plane_and_head = index - p.query_heads;  // keys, then values, as in a block of the cache
        const u64 of_block = u64(slot / p.block_size) * 2 * p.key_value_heads + plane_and_head;
        const u64 cache_row = of_block * p.block_size + slot % p.block_size;
        if constexpr (IS_SCALED<C>) {
            head.divide(scale);
            if (head.lane == 0 && exists) p.scales[cache_row] = scale;
        }
        head.store(static_cast<C*>(p.cache) + cache_row * p.head_dim);
    }
}

template <class T, class C>  // activations, cache
DEVICE void rope_store(const RopeStoreParams& p) {
    if (p.head_dim % (2 * VECTOR<T>) == 0) {
        rope_store_heads<T, C, VECTOR<T>, 1>(p);
    } else {
        rope_store_heads<T, C, 1, 4>(p);
    }
}

// PRECOND: blockIdx.x is the row; blockIdx.y and the threads share its heads, and gridDim.y is 1 where norms
// span heads; whole warps; head_dim even, 8 to 256; 4 head_dim bytes of shared memory, and 8 more a warp
// where norms span heads; `lanes` a power of two up to 32 whose pieces cover half a head (see rope_store);
// all buffers aligned to 16 bytes.
KERNEL(rope_store_bf16, RopeStoreParams, 1024, 1) { rope_store<bf16, bf16>(p); }
KERNEL(rope_store_f32, RopeStoreParams, 1024, 1) { rope_store<float, float>(p); }
KERNEL(rope_store_bf16_e4m3, RopeStoreParams, 1024, 1) { rope_store<bf16, e4m3>(p); }
KERNEL(rope_store_f32_e4m3, RopeStoreParams, 1024, 1) { rope_store<float, e4m3>(p); }
