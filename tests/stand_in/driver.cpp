// libcuda.so without a GPU: what src/device/cuda calls of the driver, over memory of the host. Kernels are run by the SIMT
// runtime that they were built for the host with (kernels/simt). Streams, and the branches of graphs, run in any order that
// CUDA's rules allow (streams.h).
//
// It shows four GPUs. Breaches of CUDA's rules are refused with CUDA's codes and named on stderr: copies past an allocation,
// waiting or allocating while capturing, copies between GPUs while capturing, streams that are not joined, launches of nothing;
// kernels that are given memory of another GPU than their stream's, which only connected GPUs would forgive; and programmatic
// dependent launches of kernels that do not wait, or that do not follow a kernel.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "simt.h"
#include "streams.h"

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
              INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
              OUT_OF_RESOURCES = 701, LAUNCH_FAILED = 719,
              CAPTURE_UNSUPPORTED = 900, CAPTURE_UNJOINED = 904, CAPTURE_ISOLATION = 905, CAPTURED_EVENT = 907 };

const int GPUS = 4;

struct Gpu {
    int users = 0;
    unsigned long launches = 0, early = 0, replays = 0, copies = 0;  // early: that may begin before the kernel ahead has ended;
                                                                     // copies: to other GPUs
    size_t taken = 0, peak = 0;                           // memory
};

struct Allocation {
    size_t bytes;
    Gpu* gpu;
};

struct Graph {
    Stream* origin;
    Lines lines;
    std::set<Gpu*> gpus;
};

}  // namespace

struct Stream {
    Gpu* gpu;
    size_t number;              // in the order in which streams are created
    unsigned long capture = 0;  // the number of the capture that has what is queued, if there is one
    bool is_after_kernel = false;
};

namespace {

using Clock = std::chrono::steady_clock;

struct Event {
    Gpu* gpu;
    Stream* stream = nullptr;
    unsigned long capture = 0;
    size_t queued = 0;
    Clock::time_point at = {};
};

// CUlaunchAttribute and CUlaunchConfig.
struct Attribute {
    int id, pad, value, rest[15];
};

struct LaunchConfig {
    unsigned x, y, z, threads, threads_y, threads_z, shared_bytes;
    Stream* stream;
    const Attribute* attributes;
    unsigned attribute_count;
};

struct Kernel {
    std::string name;
    size_t params_bytes;
    Gpu* gpu;
};

std::recursive_mutex driver;
Gpu gpus[GPUS];
std::map<uint64_t, Allocation> allocations;
std::vector<Stream*> streams;
Lines lines;                              // of what is not captured
int failure = SUCCESS;                    // the first of what ran
std::map<unsigned long, Graph> captures;  // those under way, by number
thread_local Stream* origin = nullptr;    // of this thread's capture, while there is one
thread_local Gpu* context = nullptr;
bool is_profiling = false;
bool is_broken = false;  // a kernel accessed memory that is not there: every later call says so, as in CUDA
size_t searches = 0;  // of cuBLASLt for algorithms for a weight of another shape, while profiling
const size_t TOTAL = size_t(1) << 30, GRAPH = size_t(1) << 20;

void take(Gpu* gpu, size_t bytes) { gpu->peak = std::max(gpu->peak, gpu->taken += bytes); }

int refuse(Status status, const char* call) {
    fprintf(stderr, "stand-in driver: %s: refused with %d\n", call, status);
    return status;
}

// Whose memory it is; null if it is not an allocation's.
Gpu* owner(uint64_t address, size_t bytes) {
    auto next = allocations.upper_bound(address);
    if (next == allocations.begin()) return nullptr;
    const auto& [start, allocation] = *std::prev(next);
    return address + bytes <= start + allocation.bytes ? allocation.gpu : nullptr;
}

// STAND_IN_BREAKS=gpu:replays has a GPU break down after so many replays.
unsigned long most_replays(const Gpu* gpu) {
    const char* breaks = getenv("STAND_IN_BREAKS");
    int number = -1;
    unsigned long most = 0;
    if (breaks) sscanf(breaks, "%d:%lu", &number, &most);
    return gpu == gpus + number ? most : ~0ul;
}

// Keeps the first failure of work that ran: nothing can be done after it.
int ran(int status) { return failure = failure ? failure : status; }

Lines& lines_of(const Stream* stream) { return stream->capture ? captures.at(stream->capture).lines : lines; }

// STAND_IN_FAULT=launch:NAME refuses to launch kernels whose names begin so; STAND_IN_FAULT=kernel:NAME breaks the process
// when one runs.
bool has_fault(const char* kind, const std::string& kernel) {
    const char* fault = getenv("STAND_IN_FAULT");
    const size_t length = strlen(kind);
    return fault && !strncmp(fault, kind, length) && kernel.rfind(fault + length, 0) == 0;
}

// Bytes of shared memory that a block may have: those of compute capability 9.0, or of STAND_IN_SHARED.
int most_shared() {
    const char* bytes = getenv("STAND_IN_SHARED");
    return bytes ? atoi(bytes) : 232448;
}

int queue(Stream* stream, Work work) {
    if (failure) return failure;
    stream->is_after_kernel = false;
    lines_of(stream).of(stream).steps.push_back({std::move(work)});
    if (stream->capture) {
        captures.at(stream->capture).gpus.insert(stream->gpu);
        return SUCCESS;
    }
    return ran(lines.run_any());
}

// What the machine code of kernels is for. STAND_IN_CODE=80 has kernels that the driver translated from code for 8.0.
int compiled_for() { return getenv("STAND_IN_CODE") ? atoi(getenv("STAND_IN_CODE")) : 90; }

// STAND_IN_LOSES=number loses the waits for the stream of this number, to show that results depend on them.
bool loses_waits_for(const Stream* stream) {
    const char* loses = getenv("STAND_IN_LOSES");
    return loses && stream->number == strtoul(loses, nullptr, 10);
}

}  // namespace

#define CALL                                            \
    std::lock_guard<std::recursive_mutex> lock(driver); \
    if (is_broken) return ILLEGAL_ADDRESS
#define NOT_WHILE_CAPTURING \
    if (origin) return refuse(CAPTURE_UNSUPPORTED, __func__)
#define FINISH_EVERYTHING \
    if (ran(lines.run_all())) return failure

extern "C" {

// For the stand-in of cuBLASLt.
int stand_in_queue(Stream* stream, Work* work) {
    CALL;
    return queue(stream, *work);
}

// Whether kernels of a stream may be given this address, or whatever number it is.
bool stand_in_reaches(Stream* stream, uint64_t address) {
    std::lock_guard<std::recursive_mutex> lock(driver);
    Gpu* gpu = owner(address, 1);
    return !gpu || gpu == stream->gpu;
}
// For the stand-in of cuBLASLt, once for each shape of weights.
void stand_in_search() { searches += is_profiling; }

int cuInit(unsigned) { return SUCCESS; }
int cuDriverGetVersion(int* version) { return *version = 99000, SUCCESS; }
int cuDeviceGetCount(int* count) { return *count = GPUS, SUCCESS; }
int cuDeviceGet(int* device, int ordinal) {
    if (ordinal < 0 || ordinal >= GPUS) return refuse(INVALID_DEVICE, __func__);
    return *device = ordinal, SUCCESS;
}
int cuDeviceGetName(char* name, int bytes, int) { return snprintf(name, bytes, "a stand-in"), SUCCESS; }
int cuDeviceCanAccessPeer(int* may, int gpu, int peer) { return *may = gpu / 2 == peer / 2, SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    // Multiprocessors, cache, compute capability 9.0, shared memory.
    const std::map<int, int> values = {{16, 132}, {38, 1 << 20}, {75, 9}, {76, 0}, {97, most_shared()}};
    auto found = values.find(attribute);
    return *value = found == values.end() ? 1 : found->second, SUCCESS;
}
int cuDevicePrimaryCtxRetain(Gpu** retained, int gpu) {
    CALL;
    *retained = &gpus[gpu];
    return gpus[gpu].users++, SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int number) {
    CALL;
    Gpu& gpu = gpus[number];
    if (--gpu.users) return SUCCESS;
    size_t left = 0;
    for (const auto& [_, allocation] : allocations) left += allocation.gpu == &gpu;
    if (left) fprintf(stderr, "stand-in driver: GPU %d: %zu allocations are left\n", number, left);
    fprintf(stderr, "stand-in driver: GPU %d: %lu launches, %lu early, %lu replays, %lu copies, %zu bytes; %zu searches in all\n",
            number, gpu.launches, gpu.early, gpu.replays, gpu.copies, gpu.peak, searches);
    return SUCCESS;
}
int cuCtxGetCurrent(Gpu** current) { return *current = context, SUCCESS; }
int cuCtxSetCurrent(Gpu* current) { return context = current, SUCCESS; }
int cuCtxEnablePeerAccess(Gpu* peer, unsigned flags) {
    int may = 0;
    cuDeviceCanAccessPeer(&may, context - gpus, peer - gpus);
    return may && context != peer && flags == 0 ? SUCCESS : refuse(INVALID_VALUE, __func__);
}
int cuCtxSynchronize() {
    CALL;
    NOT_WHILE_CAPTURING;
    FINISH_EVERYTHING;
    return SUCCESS;
}
int cuProfilerStart() { return is_profiling = true, SUCCESS; }
int cuProfilerStop() { return is_profiling = false, SUCCESS; }

int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (bytes == 0 || !context) return refuse(INVALID_VALUE, __func__);
    void* memory = codit_simt_allocate(bytes);
    if (!memory) return OUT_OF_MEMORY;
    *address = reinterpret_cast<uint64_t>(memory);
    allocations[*address] = {bytes, context};
    take(context, bytes);
    return SUCCESS;
}
int cuMemFree_v2(uint64_t address) {
    CALL;
    lines.run_all();
    auto found = allocations.find(address);
    if (found == allocations.end()) return refuse(INVALID_VALUE, __func__);
    found->second.gpu->taken -= found->second.bytes;
    allocations.erase(found);
    codit_simt_free(reinterpret_cast<void*>(address));
    return SUCCESS;
}
int cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = TOTAL - std::min(TOTAL, context->taken), *total = TOTAL, SUCCESS; }
int cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    CALL;
    NOT_WHILE_CAPTURING;
    return *memory = malloc(bytes), SUCCESS;
}
int cuMemFreeHost(void* memory) {
    CALL;
    lines.run_all();
    return free(memory), SUCCESS;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (owner(to, bytes) != stream->gpu) return refuse(INVALID_VALUE, __func__);
    return queue(stream, [=] { return memcpy(reinterpret_cast<void*>(to), from, bytes), SUCCESS; });
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (owner(from, bytes) != stream->gpu) return refuse(INVALID_VALUE, __func__);
    return queue(stream, [=] { return memcpy(to, reinterpret_cast<void*>(from), bytes), SUCCESS; });
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
    CALL;
    if (owner(from, bytes) != stream->gpu || owner(to, bytes) != stream->gpu) return refuse(INVALID_VALUE, __func__);
    return queue(stream, [=] { return memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes), SUCCESS; });
}
int cuMemcpyPeerAsync(uint64_t to, Gpu* to_gpu, uint64_t from, Gpu* from_gpu, size_t bytes, Stream* stream) {
    CALL;
    if (stream->capture) return refuse(CAPTURE_UNSUPPORTED, __func__);
    if (owner(from, bytes) != from_gpu || owner(to, bytes) != to_gpu || from_gpu == to_gpu || bytes == 0 ||
        stream->gpu != from_gpu || context != from_gpu) {
        return refuse(INVALID_VALUE, __func__);
    }
    from_gpu->copies++;
    return queue(stream, [=] { return memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes), SUCCESS; });
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Stream* stream) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (owner(to, bytes) != stream->gpu) return refuse(INVALID_VALUE, __func__);
    return queue(stream, [=] { return memset(reinterpret_cast<void*>(to), value, bytes), SUCCESS; });
}

int cuStreamCreate(Stream** stream, unsigned) {
    CALL;
    streams.push_back(*stream = new Stream{context, streams.size()});
    return SUCCESS;
}
int cuStreamDestroy_v2(Stream*) { return SUCCESS; }
int cuStreamSynchronize(Stream* stream) {
    CALL;
    NOT_WHILE_CAPTURING;
    return ran(lines.run(stream, lines.of(stream).queued()));
}
int cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    CALL;
    if (!event->stream) return SUCCESS;
    if (event->capture) {
        if (!captures.count(event->capture)) return refuse(CAPTURED_EVENT, __func__);
        stream->capture = event->capture;
    } else if (stream->capture) {
        return refuse(CAPTURE_ISOLATION, __func__);
    }
    stream->is_after_kernel = false;
    if (!loses_waits_for(event->stream)) lines_of(stream).wait(stream, event->stream, event->queued);
    return SUCCESS;
}
int cuStreamBeginCapture_v2(Stream* stream, int mode) {
    static unsigned long number = 0;
    CALL;
    NOT_WHILE_CAPTURING;
    const int OF_THIS_THREAD = 1;
    if (mode != OF_THIS_THREAD) return refuse(INVALID_VALUE, __func__);
    stream->capture = ++number;
    stream->is_after_kernel = false;
    captures[number] = {stream, {}, {}};
    return origin = stream, SUCCESS;
}
int cuStreamEndCapture(Stream* stream, Graph** graph) {
    CALL;
    if (stream != origin) return refuse(INVALID_VALUE, __func__);
    origin = nullptr;
    const auto capture = captures.find(stream->capture);
    bool is_joined = true;
    for (Stream* each : streams) {
        if (each->capture != capture->first) continue;
        const Line& line = capture->second.lines.of(each);
        is_joined &= each == stream || line.joined == line.queued();
        each->capture = 0;
        each->is_after_kernel = false;
    }
    *graph = new Graph(capture->second);
    captures.erase(capture);
    return is_joined ? SUCCESS : refuse(CAPTURE_UNJOINED, __func__);
}

int cuEventCreate(Event** event, unsigned) {
    CALL;
    return *event = new Event{context}, SUCCESS;
}
int cuEventDestroy_v2(Event* event) { return delete event, SUCCESS; }
int cuEventRecord(Event* event, Stream* stream) {
    CALL;
    if (event->gpu != stream->gpu) return refuse(INVALID_HANDLE, __func__);
    const size_t queued = lines_of(stream).of(stream).queued();
    // A time means something only when the work before it has run.
    if (getenv("STAND_IN_CLOCK") && !stream->capture && ran(lines.run(stream, queued))) return failure;
    *event = {event->gpu, stream, stream->capture, queued, Clock::now()};
    return stream->is_after_kernel = false, SUCCESS;
}
int cuEventQuery(Event* event) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (event->capture) return refuse(CAPTURED_EVENT, __func__);
    if (failure || !event->stream) return failure;
    return lines.of(event->stream).done >= event->queued ? SUCCESS : NOT_READY;
}
int cuEventSynchronize(Event* event) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (event->stream && !event->capture) ran(lines.run(event->stream, event->queued));
    return cuEventQuery(event);
}
int cuEventElapsedTime_v2(float* milliseconds, Event* from, Event* to) {
    CALL;
    static unsigned long calls = 0;
    if (!from->stream || !to->stream) return refuse(INVALID_VALUE, __func__);
    // Without STAND_IN_CLOCK, times in no order, so that algorithms are chosen in none.
    *milliseconds = getenv("STAND_IN_CLOCK") ? std::chrono::duration<float, std::milli>(to->at - from->at).count()
                                             : 1.0f + float(++calls * 7919 % 13);
    const int status = cuEventQuery(from);
    return status ? status : cuEventQuery(to);
}

int cuGraphInstantiateWithFlags(Graph** instance, Graph* graph, unsigned long long) {
    for (Gpu* gpu : graph->gpus) take(gpu, GRAPH);
    return *instance = new Graph(*graph), SUCCESS;
}
int cuGraphLaunch(Graph* instance, Stream* stream) {
    CALL;
    NOT_WHILE_CAPTURING;
    if (++stream->gpu->replays > most_replays(stream->gpu)) return refuse(LAUNCH_FAILED, __func__);
    return queue(stream, [graph = *instance]() mutable { return graph.lines.run(graph.origin, graph.lines.of(graph.origin).queued()); });
}
int cuGraphExecDestroy(Graph* instance) {
    for (Gpu* gpu : instance->gpus) gpu->taken -= GRAPH;
    return delete instance, SUCCESS;
}
int cuGraphDestroy(Graph* graph) { return delete graph, SUCCESS; }

int cuModuleLoadData(Gpu** module, const void* image) {
    CALL;
    const uint32_t fatbin = 0xBA55ED50;
    if (memcmp(image, &fatbin, sizeof fatbin) != 0) return refuse(INVALID_IMAGE, __func__);
    return *module = context, SUCCESS;
}
int cuModuleUnload(void*) { return SUCCESS; }
int cuModuleGetFunction(Kernel** function, Gpu* module, const char* name) {
    CALL;
    NOT_WHILE_CAPTURING;
    const size_t count = codit_simt_kernels(nullptr, nullptr, 0);
    std::vector<const char*> names(count);
    std::vector<size_t> sizes(count);
    codit_simt_kernels(names.data(), sizes.data(), count);
    for (size_t i = 0; i < count; i++) {
        if (names[i] == std::string(name)) return *function = new Kernel{name, sizes[i], module}, SUCCESS;
    }
    return NOT_FOUND;
}
int cuFuncSetAttribute(Kernel*, int attribute, int value) {
    CALL;
    return attribute == 8 && value > most_shared() ? refuse(INVALID_VALUE, __func__) : SUCCESS;
}
int cuFuncGetAttribute(int* value, int attribute, Kernel*) {
    const int PTX_VERSION = 5;
    return attribute == PTX_VERSION ? (*value = compiled_for(), SUCCESS) : refuse(INVALID_VALUE, __func__);
}
int cuLaunchKernelEx(const LaunchConfig* config, Kernel* kernel, void** arguments, void**) {
    CALL;
    const auto [x, y, z, threads, threads_y, threads_z, shared_bytes, stream, attributes, attribute_count] = *config;
    if (!x || !y || !z || !threads || threads_y != 1 || threads_z != 1 || shared_bytes > unsigned(most_shared())) {
        return refuse(INVALID_VALUE, __func__);
    }
    for (const Attribute* each = attributes; each < attributes + attribute_count; each++) {
        const int PROGRAMMATIC_STREAM_SERIALIZATION = 6;
        const bool waits = compiled_for() >= 90;
        if (each->id != PROGRAMMATIC_STREAM_SERIALIZATION || each->value != 1 || !waits || !stream->is_after_kernel) {
            return refuse(INVALID_VALUE, __func__);
        }
        stream->gpu->early++;
    }
    if (has_fault("launch:", kernel->name)) return OUT_OF_RESOURCES;
    if (kernel->gpu != stream->gpu || context != stream->gpu) return refuse(INVALID_CONTEXT, __func__);
    stream->gpu->launches++;
    const char* first = static_cast<const char*>(arguments[0]);
    std::vector<char> params(first, first + kernel->params_bytes);
    for (size_t at = 0; at + 8 <= params.size(); at += 8) {
        uint64_t address;
        memcpy(&address, &params[at], 8);
        if (!stand_in_reaches(stream, address)) {
            fprintf(stderr, "stand-in driver: %s: byte %zu of its parameters is memory of another GPU\n", kernel->name.c_str(), at);
            return refuse(ILLEGAL_ADDRESS, __func__);
        }
    }
    const Work work = [=, shared_bytes = shared_bytes, x = x, y = y, z = z, threads = threads] {
        char message[512] = "";
        const uint32_t grid[3] = {x, y, z}, block[3] = {threads, 1, 1};
        const int status = codit_simt_run(kernel->name.c_str(), params.data(), params.size(), grid, block, shared_bytes, 0, 0,
                                          uint64_t(x) * y * z, message, sizeof message);
        if (status) fprintf(stderr, "stand-in driver: %s\n", message);
        is_broken = has_fault("kernel:", kernel->name);
        return status ? LAUNCH_FAILED : SUCCESS;
    };
    const int status = queue(stream, work);
    stream->is_after_kernel = true;
    return status;
}

}  // extern "C"
