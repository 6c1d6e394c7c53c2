// Fibres: executions with their own stacks that switch to each other explicitly.
#pragma once

#include <cstddef>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ADDRESS_SANITIZER 1
#endif
#endif

// Processors without an assembly switch use the system's ucontext, which takes one or two system calls a
// turn.
#if !defined(__x86_64__) && !defined(__aarch64__)
#define SIMT_UCONTEXT 1
#endif
#if SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace simt {

// The stacks of one OS thread's fibres, kept from launch to launch. Below each stack lies a page without
// access, so that an overflow crashes instead of changing the results of another thread.
class Stacks {
public:
    struct Stack {
        unsigned char* bottom;
        size_t bytes;
    };

    Stacks() = default;
    Stacks(const Stacks&) = delete;
    Stacks& operator=(const Stacks&) = delete;
    ~Stacks();

    // Makes `count` stacks available. Returns false if the system has no more memory or mappings.
    bool reserve(size_t count);
    Stack operator[](size_t index) const;

private:
    std::vector<unsigned char*> mappings;
};

// The point at which an execution stopped. Its stack holds everything else that it needs to continue.
class Context {
public:
    // Makes the first switch to this context run `entry` on the stack. PRECOND: `entry` does not return.
    void start(Stacks::Stack stack, void (*entry)());
    // Stops this execution and continues `next`. Returns when another execution switches back.
    void switch_to(Context& next);

private:
    [[noreturn]] static void begin();
    void arrived();

    void (*entry)() = nullptr;
#if SIMT_UCONTEXT
    ucontext_t machine;
#else
    void* stack_pointer = nullptr;
#endif
#if SIMT_ADDRESS_SANITIZER
    const void* bottom = nullptr;
    size_t bytes = 0;
    void* fake_stack = nullptr;
#endif
};

}  // namespace simt
