// A few consecutive numbers of a row, as floats: what one thread holds of it.
#pragma once

#include "prelude.cuh"

template <int N>
struct Floats {
    float v[N];

    DEVICE float& operator[](int i) { return v[i]; }
    DEVICE float operator[](int i) const { return v[i]; }
};

// How many T one access of 16 bytes carries.
template <class T>
constexpr int VECTOR = 16 / sizeof(T);

// PRECOND: `at` is aligned to N numbers, at most 16 bytes.
template <int N, class T>
DEVICE Floats<N> load_floats(const T* at) {
    const Vec<T, N> vec = load_vec<N>(at);
    Floats<N> x;
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = to_float(vec.v[i]);
    return x;
}

// PRECOND: as of load_floats.
template <class T, int N>
DEVICE void store_floats(T* at, const Floats<N>& x) {
    Vec<T, N> vec;
#pragma unroll
    for (int i = 0; i < N; i++) vec.v[i] = from_float<T>(x[i]);
    store_vec(at, vec);
}
