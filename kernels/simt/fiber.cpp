#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

#if SIMT_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifdef __APPLE__
#define SYMBOL "_codit_simt_switch"
#else
#define SYMBOL "codit_simt_switch"
#endif

// codit_simt_switch(save, load) pushes the registers that a function must preserve, stores the stack pointer
// in *save, makes `load` the stack pointer and pops the registers from there. It ends in `ret`, not in a
// jump: nearly all fibres wait at one place, so the processor's return predictor is right.
#if SIMT_UCONTEXT
#elif defined(__x86_64__)
asm(R"(
    .text
    .p2align 4
    .globl )" SYMBOL R"(
)" SYMBOL R"(:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#elif defined(__aarch64__)
asm(R"(
    .text
    .p2align 4
    .globl )" SYMBOL R"(
)" SYMBOL R"(:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
)");
#endif

extern "C" void codit_simt_switch(void** save, void* load);

namespace simt {
namespace {

// Frames are several times as large under AddressSanitizer.
#if SIMT_ADDRESS_SANITIZER
constexpr size_t stack_bytes = 256 << 10;
#else
constexpr size_t stack_bytes = 64 << 10;
#endif

size_t page() {
    static const size_t bytes = size_t(sysconf(_SC_PAGESIZE));
    return bytes;
}

// The two contexts of the switch in progress. A new fibre learns them here.
thread_local Context* leaving = nullptr;
thread_local Context* entering = nullptr;

}  // namespace

Stacks::~Stacks() {
    for (unsigned char* mapping : mappings) {
#if SIMT_ADDRESS_SANITIZER
        // The next mapping at this address may be read and written.
        __asan_unpoison_memory_region(mapping + page(), stack_bytes);
#endif
        munmap(mapping, page() + stack_bytes);
    }
}

bool Stacks::reserve(size_t count) {
    while (mappings.size() < count) {
        void* mapping =
            mmap(nullptr, page() + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapping == MAP_FAILED) return false;
        mappings.push_back(static_cast<unsigned char*>(mapping));
        if (mprotect(mapping, page(), PROT_NONE) != 0) return false;
    }
    return true;
}

Stacks::Stack Stacks::operator[](size_t index) const {
    // Stacks begin at the same place of their pages and would share a few sets of the first-level cache. So
    // each stack is shifted by another multiple of a cache line, up to a page.
    const size_t colour = index * 832 % 4096;
    return {mappings[index] + page(), stack_bytes - colour};
}

void Context::start(Stacks::Stack stack, void (*function)()) {
    entry = function;
#if SIMT_ADDRESS_SANITIZER
    // The last fibre on this stack never returned from its last calls, so their frames are still poisoned.
    __asan_unpoison_memory_region(stack.bottom, stack.bytes);
    bottom = stack.bottom;
    bytes = stack.bytes;
    fake_stack = nullptr;
#endif
#if SIMT_UCONTEXT
    getcontext(&machine);
    machine.uc_stack.ss_sp = stack.bottom;
    machine.uc_stack.ss_size = stack.bytes;
    machine.uc_link = nullptr;
    makecontext(&machine, begin, 0);
#else
    // The frame that the switch pops, as if `begin` had called the switch at its first instruction.
    auto top = reinterpret_cast<uintptr_t*>(stack.bottom + stack.bytes);
#if defined(__x86_64__)
    *--top = 0;  // `begin` has no return address; this keeps the alignment that a call leaves
    *--top = reinterpret_cast<uintptr_t>(&begin);
    for (int saved = 0; saved < 6; ++saved) *--top = 0;
#elif defined(__aarch64__)
    for (int saved = 0; saved < 20; ++saved) *--top = 0;
    top[11] = reinterpret_cast<uintptr_t>(&begin);  // x30
#endif
    stack_pointer = top;
#endif
}

void Context::begin() {
    Context& self = *entering;
    self.arrived();
    self.entry();
    std::abort();
}

void Context::switch_to(Context& next) {
    leaving = this;
    entering = &next;
#if SIMT_ADDRESS_SANITIZER
    __sanitizer_start_switch_fiber(&fake_stack, next.bottom, next.bytes);
#endif
#if SIMT_UCONTEXT
    swapcontext(&machine, &next.machine);
#else
    codit_simt_switch(&stack_pointer, next.stack_pointer);
#endif
    arrived();
}

inline void Context::arrived() {
#if SIMT_ADDRESS_SANITIZER
    // This call also returns the bounds of the OS thread's own stack.
    __sanitizer_finish_switch_fiber(fake_stack, &leaving->bottom, &leaving->bytes);
#endif
}

}  // namespace simt
