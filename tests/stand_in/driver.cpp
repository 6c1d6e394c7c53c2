// libcuda.so without a GPU: what src/device/cuda calls of the driver, over memory of the host. Kernels are run by the SIMT
// runtime that they were built for the host with (kernels/simt), at once; streams only order what is captured.
//
// Breaches of CUDA's rules are refused with CUDA's codes and named on stderr: copies past an allocation, waiting or
// allocating while capturing, lanes that are not joined, launches of nothing.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "simt.h"

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, NOT_FOUND = 500, LAUNCH_FAILED = 719,
              CAPTURE_UNSUPPORTED = 900, CAPTURE_UNJOINED = 904, CAPTURE_ISOLATION = 905, CAPTURED_EVENT = 907 };

using Work = std::function<int()>;

struct Stream {
    bool is_capturing = false;
    size_t queued = 0, joined = 0;  // of what the capture has of this stream
};

struct Event {
    Stream* stream = nullptr;
    bool is_captured = false;
    size_t queued = 0;
};

struct Graph {
    std::vector<Work> work;
};

struct Kernel {
    std::string name;
    size_t params_bytes;
};

std::recursive_mutex driver;
std::map<uint64_t, size_t> allocations;
std::vector<Stream*> streams;
Stream* origin = nullptr;  // of the capture, while there is one
Graph captured;
thread_local void* context = nullptr;
unsigned long launches = 0, replays = 0;
bool is_profiling = false;
size_t searches = 0;  // of cuBLASLt for algorithms for a weight of another shape, while profiling
const size_t TOTAL = size_t(1) << 30, GRAPH = size_t(1) << 20;
size_t taken = 0, peak = 0;  // memory

void take(size_t bytes) { peak = std::max(peak, taken += bytes); }

int refuse(Status status, const char* call) {
    fprintf(stderr, "stand-in driver: %s: refused with %d\n", call, status);
    return status;
}

bool is_allocated(uint64_t address, size_t bytes) {
    auto next = allocations.upper_bound(address);
    if (next == allocations.begin()) return false;
    const auto& [start, length] = *std::prev(next);
    return address + bytes <= start + length;
}

int queue(Stream* stream, Work work) {
    if (!stream->is_capturing) return work();
    captured.work.push_back(std::move(work));
    stream->queued++;
    return SUCCESS;
}

}  // namespace

#define CALL std::lock_guard<std::recursive_mutex> lock(driver)
#define NOT_WHILE_CAPTURING \
    if (origin) return refuse(CAPTURE_UNSUPPORTED, __func__)

extern "C" {

// For the stand-in of cuBLASLt.
int stand_in_queue(Stream* stream, Work* work) {
    CALL;
    return queue(stream, *work);
}

// For the stand-in of cuBLASLt, once for each shape of weights.
void stand_in_search() { searches += is_profiling; }

int cuInit(unsigned) { return SUCCESS; }
int cuDriverGetVersion(int* version) { return *version = 99000, SUCCESS; }
int cuDeviceGet(int* device, int) { return *device = 0, SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    const std::map<int, int> values = {{38, 1 << 20}, {75, 9}, {76, 0}, {97, 232448}};  // cache, 9.0, shared memory
    auto found = values.find(attribute);
    return *value = found == values.end() ? 1 : found->second, SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** retained, int) { return *retained = &driver, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) {
    CALL;
    if (!allocations.empty()) fprintf(stderr, "stand-in driver: %zu allocations are left\n", allocations.size());
    fprintf(stderr, "stand-in driver: %lu launches, %lu replays, %zu searches, %zu bytes\n", launches, replays, searches, peak);
    return SUCCESS;
}
int cuCtxGetCurrent(void** current) { return *current = context, SUCCESS; }
int cuCtxSetCurrent(void* current) { return context = current, SUCCESS; }
int cuCtxSynchronize() {
    NOT_WHILE_CAPTURING;
    return SUCCESS;
}
int cuProfilerStart() { return is_profiling = true, SUCCESS; }
int cuProfilerStop() { return is_profiling = false, SUCCESS; }

int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (bytes == 0) return refuse(INVALID_VALUE, __func__);
    void* memory = codit_simt_allocate(bytes);
    if (!memory) return OUT_OF_MEMORY;
    *address = reinterpret_cast<uint64_t>(memory);
    allocations[*address] = bytes;
    take(bytes);
    return SUCCESS;
}
int cuMemFree_v2(uint64_t address) {
    CALL;
    auto found = allocations.find(address);
    if (found == allocations.end()) return refuse(INVALID_VALUE, __func__);
    taken -= found->second;
    allocations.erase(found);
    codit_simt_free(reinterpret_cast<void*>(address));
    return SUCCESS;
}
int cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = TOTAL - std::min(TOTAL, taken), *total = TOTAL, SUCCESS; }
int cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    NOT_WHILE_CAPTURING;
    return *memory = malloc(bytes), SUCCESS;
}
int cuMemFreeHost(void* memory) { return free(memory), SUCCESS; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream*) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (!is_allocated(to, bytes)) return refuse(INVALID_VALUE, __func__);
    return memcpy(reinterpret_cast<void*>(to), from, bytes), SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream*) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (!is_allocated(from, bytes)) return refuse(INVALID_VALUE, __func__);
    return memcpy(to, reinterpret_cast<void*>(from), bytes), SUCCESS;
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Stream*) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (!is_allocated(to, bytes)) return refuse(INVALID_VALUE, __func__);
    return memset(reinterpret_cast<void*>(to), value, bytes), SUCCESS;
}

int cuStreamCreate(Stream** stream, unsigned) {
    CALL;
    streams.push_back(*stream = new Stream);
    return SUCCESS;
}
int cuStreamDestroy_v2(Stream*) { return SUCCESS; }
int cuStreamSynchronize(Stream*) {
    NOT_WHILE_CAPTURING;
    return SUCCESS;
}
int cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    CALL;
    if (event->is_captured) {
        stream->is_capturing = true;
        event->stream->joined = event->queued;
    } else if (stream->is_capturing && event->stream) {
        return refuse(CAPTURE_ISOLATION, __func__);
    }
    return SUCCESS;
}
int cuStreamBeginCapture_v2(Stream* stream, int) {
    CALL;
    NOT_WHILE_CAPTURING;
    for (Stream* each : streams) *each = {};
    captured = {};
    origin = stream;
    return stream->is_capturing = true, SUCCESS;
}
int cuStreamEndCapture(Stream* stream, Graph** graph) {
    CALL;
    if (stream != origin) return refuse(INVALID_VALUE, __func__);
    origin = nullptr;
    bool is_joined = true;
    for (Stream* each : streams) {
        is_joined &= each == stream || each->joined == each->queued;
        each->is_capturing = false;
    }
    *graph = new Graph(captured);
    return is_joined ? SUCCESS : refuse(CAPTURE_UNJOINED, __func__);
}

int cuEventCreate(Event** event, unsigned) { return *event = new Event, SUCCESS; }
int cuEventDestroy_v2(Event* event) { return delete event, SUCCESS; }
int cuEventRecord(Event* event, Stream* stream) {
    CALL;
    *event = {stream, stream->is_capturing, stream->queued};
    return SUCCESS;
}
int cuEventQuery(Event* event) {
    CALL;
    NOT_WHILE_CAPTURING;
    return event->is_captured ? refuse(CAPTURED_EVENT, __func__) : SUCCESS;
}
int cuEventSynchronize(Event* event) { return cuEventQuery(event); }
int cuEventElapsedTime_v2(float* milliseconds, Event* from, Event* to) {
    static unsigned long calls = 0;
    if (!from->stream || !to->stream) return refuse(INVALID_VALUE, __func__);
    *milliseconds = 1.0f + float(++calls * 7919 % 13);  // so that algorithms are chosen in no order
    return cuEventQuery(to);
}

int cuGraphInstantiateWithFlags(Graph** instance, Graph* graph, unsigned long long) {
    take(GRAPH);
    return *instance = new Graph(*graph), SUCCESS;
}
int cuGraphLaunch(Graph* instance, Stream*) {
    CALL;
    NOT_WHILE_CAPTURING;
    replays++;
    for (const Work& work : instance->work) {
        if (int status = work()) return status;
    }
    return SUCCESS;
}
int cuGraphExecDestroy(Graph* instance) { return taken -= GRAPH, delete instance, SUCCESS; }
int cuGraphDestroy(Graph* graph) { return delete graph, SUCCESS; }

int cuModuleLoadData(void** module, const void* image) {
    const uint32_t fatbin = 0xBA55ED50;
    if (memcmp(image, &fatbin, sizeof fatbin) != 0) return refuse(INVALID_IMAGE, __func__);
    return *module = &allocations, SUCCESS;
}
int cuModuleUnload(void*) { return SUCCESS; }
int cuModuleGetFunction(Kernel** function, void*, const char* name) {
    NOT_WHILE_CAPTURING;
    const size_t count = codit_simt_kernels(nullptr, nullptr, 0);
    std::vector<const char*> names(count);
    std::vector<size_t> sizes(count);
    codit_simt_kernels(names.data(), sizes.data(), count);
    for (size_t i = 0; i < count; i++) {
        if (names[i] == std::string(name)) return *function = new Kernel{name, sizes[i]}, SUCCESS;
    }
    return NOT_FOUND;
}
int cuFuncSetAttribute(Kernel*, int, int) { return SUCCESS; }
int cuLaunchKernel(Kernel* kernel, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned shared_bytes,
                   Stream* stream, void** arguments, void**) {
    CALL;
    if (!x || !y || !z || !threads) return refuse(INVALID_VALUE, __func__);
    launches++;
    const char* first = static_cast<const char*>(arguments[0]);
    std::vector<char> params(first, first + kernel->params_bytes);
    return queue(stream, [=] {
        char message[512] = "";
        const uint32_t grid[3] = {x, y, z}, block[3] = {threads, 1, 1};
        const int status = codit_simt_run(kernel->name.c_str(), params.data(), params.size(), grid, block, shared_bytes, 0, 0,
                                          uint64_t(x) * y * z, message, sizeof message);
        if (status) fprintf(stderr, "stand-in driver: %s\n", message);
        return status ? LAUNCH_FAILED : SUCCESS;
    });
}

}  // extern "C"
