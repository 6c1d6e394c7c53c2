// libcublasLt.so without a GPU: what src/device/cuda/matmul.rs calls, column-major as cuBLASLt is, with sums in the order of
// src/device/simt. Of the four algorithms that it proposes, in an order of the number of columns, one suits only the number it
// was proposed for, and one cuts sums into parts: with STAND_IN_CUTS set, its sums have the order of that. When it is closed it says how many algorithms served one weight at most, and
// how many products were cut.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

using Work = std::function<int()>;
extern "C" int stand_in_queue(void* stream, Work* work);
extern "C" bool stand_in_reaches(void* stream, uint64_t address);
extern "C" void stand_in_search();

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum Type { F32 = 0, BF16 = 14 };

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t stride;
};

struct Operation {
    int sums, scale, transpose_a = 0, epilogue = 1, bias_type = -1;
    const void* bias = nullptr;
};

enum Kind : uint64_t { LARGE_TILE, SMALL_TILE, ONE_SIZE, SPLIT };

struct Algorithm {
    uint64_t kind, columns, rest[6];
};

struct Proposal {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

// Which algorithms served a weight: its shape, its type and that of the products.
std::mutex uses_lock;
std::map<std::tuple<uint64_t, uint64_t, int, int>, std::set<uint64_t>> uses;
size_t splits = 0;

float get(int type, const void* numbers, size_t index) {
    if (type == F32) return static_cast<const float*>(numbers)[index];
    const uint32_t bits = uint32_t(static_cast<const uint16_t*>(numbers)[index]) << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void put(int type, void* numbers, size_t index, float x) {
    if (type == F32) {
        static_cast<float*>(numbers)[index] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    static_cast<uint16_t*>(numbers)[index] = x == x ? (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 : 0x7FFF;
}

// A matrix as floats, column by column.
std::vector<float> floats(const Layout& layout, const void* matrix) {
    std::vector<float> all(layout.rows * layout.columns);
    for (size_t i = 0; i < all.size(); i++) all[i] = get(layout.type, matrix, i / layout.rows * layout.stride + i % layout.rows);
    return all;
}

// The sum of the products of the terms from `first` to `last`, term k in the sum k % 16.
float dot(const float* a, const float* b, uint64_t first, uint64_t last) {
    float sums[16] = {};
    uint64_t k = first;
    for (; k < last && k % 16; k++) sums[k % 16] += a[k] * b[k];
    for (; k + 16 <= last; k += 16) {
        for (int i = 0; i < 16; i++) sums[i] += a[k + i] * b[k + i];
    }
    for (; k < last; k++) sums[k % 16] += a[k] * b[k];
    float sum = 0;
    for (float part : sums) sum += part;
    return sum;
}

template <class T>
bool set(T& field, const void* value, size_t bytes) {
    return bytes == sizeof field && memcpy(&field, value, bytes);
}

}  // namespace

extern "C" {

int cublasLtCreate(void** handle) { return *handle = handle, SUCCESS; }
int cublasLtDestroy(void*) {
    std::lock_guard<std::mutex> lock(uses_lock);
    size_t most = 0;
    for (const auto& [weight, kinds] : uses) most = std::max(most, kinds.size());
    fprintf(stderr, "stand-in cuBLASLt: %zu algorithms for a weight, %zu sums cut\n", most, splits);
    return SUCCESS;
}
int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    return *layout = new Layout{type, rows, columns, stride}, SUCCESS;
}
int cublasLtMatrixLayoutDestroy(Layout* layout) { return delete layout, SUCCESS; }
int cublasLtMatmulDescCreate(Operation** operation, int sums, int scale) {
    return *operation = new Operation{sums, scale}, SUCCESS;
}
int cublasLtMatmulDescDestroy(Operation* operation) { return delete operation, SUCCESS; }
int cublasLtMatmulDescSetAttribute(Operation* operation, int attribute, const void* value, size_t bytes) {
    const bool is_set = attribute == 3    ? set(operation->transpose_a, value, bytes)
                        : attribute == 7  ? set(operation->epilogue, value, bytes)
                        : attribute == 8  ? set(operation->bias, value, bytes)
                        : attribute == 26 ? set(operation->bias_type, value, bytes)
                                          : false;
    return is_set ? SUCCESS : INVALID_VALUE;
}
int cublasLtMatmulPreferenceCreate(int** preference) { return *preference = new int, SUCCESS; }
int cublasLtMatmulPreferenceDestroy(int* preference) { return delete preference, SUCCESS; }
int cublasLtMatmulPreferenceSetAttribute(int*, int attribute, const void*, size_t bytes) {
    return (attribute == 1 && bytes == 8) || (attribute == 3 && bytes == 4) ? SUCCESS : INVALID_VALUE;
}
// NVIDIA's library adds no bias of another number format than D's.
static bool has_bias_of(const Operation* operation, const Layout* d) { return operation->epilogue != 4 || operation->bias_type == d->type; }
int cublasLtMatmulAlgoGetHeuristic(void*, Operation* operation, Layout* a, Layout* b, Layout*, Layout* d, int*, int room,
                                   Proposal* proposals, int* count) {
    *count = 0;
    if (!has_bias_of(operation, d)) return NOT_SUPPORTED;
    static std::set<std::pair<uint64_t, uint64_t>> weights;
    if (weights.insert({a->rows, a->columns}).second) stand_in_search();
    const Kind small[4] = {ONE_SIZE, SPLIT, SMALL_TILE, LARGE_TILE}, medium[4] = {SPLIT, ONE_SIZE, SMALL_TILE, LARGE_TILE},
               large[4] = {LARGE_TILE, SPLIT, ONE_SIZE, SMALL_TILE};
    const Kind* kinds = b->columns <= 4 ? small : b->columns <= 64 ? medium : large;
    *count = std::min(room, 4);
    for (int i = 0; i < *count; i++) proposals[i] = {{kinds[i], b->columns, {}}, 0, SUCCESS, 1, {}};
    return SUCCESS;
}
int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm, int attribute, uint32_t* value, size_t bytes, size_t* written) {
    if (bytes != sizeof *value || (attribute != 2 && attribute != 3)) return INVALID_VALUE;
    const bool is_split = algorithm->kind == SPLIT;
    *value = attribute == 2 ? (is_split ? 4 : 1) : (is_split ? 2 : 0);  // parts, and how they are added
    return *written = bytes, SUCCESS;
}
int cublasLtMatmulAlgoCheck(void*, Operation*, Layout*, Layout* b, Layout*, Layout*, const Algorithm* algorithm,
                            Proposal* proposal) {
    if (algorithm->kind == ONE_SIZE && algorithm->columns != b->columns) return NOT_SUPPORTED;
    if (getenv("STAND_IN_SERVES_NONE")) return NOT_SUPPORTED;
    return *proposal = {*algorithm, 0, SUCCESS, 1, {}}, SUCCESS;
}
int cublasLtMatmul(void*, Operation* operation, const float* alpha, const void* A, Layout* a, const void* B, Layout* b,
                   const float* beta, const void* C, Layout*, void* D, Layout* d, const Algorithm* algorithm, void* workspace,
                   size_t, void* stream) {
    const bool is_ours = *alpha == 1 && *beta == 0 && C == D && workspace && operation->transpose_a == 1 &&
                         operation->sums == 68 && operation->scale == F32 && a->rows == b->rows && a->columns == d->rows &&
                         b->columns == d->columns;
    if (!has_bias_of(operation, d)) return fprintf(stderr, "stand-in cuBLASLt: refused: a bias of another format than D\n"), NOT_SUPPORTED;
    if (!is_ours) return fprintf(stderr, "stand-in cuBLASLt: an unknown product\n"), INVALID_VALUE;
    for (const void* matrix : {A, B, C, static_cast<const void*>(workspace), operation->bias}) {
        if (!stand_in_reaches(stream, reinterpret_cast<uint64_t>(matrix))) {
            return fprintf(stderr, "stand-in cuBLASLt: refused: a matrix is memory of another GPU\n"), INVALID_VALUE;
        }
    }
    if (algorithm->kind == ONE_SIZE && algorithm->columns != b->columns) return NOT_SUPPORTED;
    // STAND_IN_FAULT=product:ROWS fails products of so many rows.
    int rows = 0;
    const char* fault = getenv("STAND_IN_FAULT");
    if (fault && sscanf(fault, "product:%d", &rows) == 1 && uint64_t(rows) == b->columns) return EXECUTION_FAILED;
    {
        std::lock_guard<std::mutex> lock(uses_lock);
        uses[{a->rows, a->columns, a->type, d->type}].insert(algorithm->kind);
        splits += algorithm->kind == SPLIT;
    }
    const Operation with = *operation;
    const Layout la = *a, lb = *b, ld = *d;
    const uint64_t terms = la.rows, cut = algorithm->kind == SPLIT && getenv("STAND_IN_CUTS") ? terms / 3 : 0;
    Work work = [=] {
        const std::vector<float> weight = floats(la, A), x = floats(lb, B);
        for (uint64_t column = 0; column < ld.columns; column++) {
            for (uint64_t row = 0; row < ld.rows; row++) {
                const float *a = &weight[row * terms], *b = &x[column * terms];
                float sum = dot(a, b, cut, terms);
                if (cut) sum += dot(a, b, 0, cut);
                if (with.epilogue == 4) sum += get(with.bias_type, with.bias, row);
                put(ld.type, D, column * ld.stride + row, sum);
            }
        }
        return 0;
    };
    return stand_in_queue(stream, &work) ? EXECUTION_FAILED : SUCCESS;
}

}  // extern "C"
