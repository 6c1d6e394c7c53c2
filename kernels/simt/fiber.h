// Fibres: executions with a stack of their own that hand the processor to each other by name.
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

// Processors for which no switch is written take the system's, at a system call or two a turn.
#if !defined(__x86_64__) && !defined(__aarch64__)
#define SIMT_UCONTEXT 1
#endif
#if SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace simt {

// The stacks of one OS thread's fibres, kept from launch to launch. Below each lies a page without access, so
// that an overflow is a crash and not another thread's wrong result.
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

    // False where the system has no more memory (or mappings) to give.
    bool reserve(size_t count);
    Stack operator[](size_t index) const;

private:
    std::vector<unsigned char*> mappings;
};

// Where an execution stopped. Everything else that it needs to go on lies on its stack.
class Context {
public:
    // `entry` runs on the stack at the first switch here. It must not return.
    void start(Stacks::Stack stack, void (*entry)());
    // Stops here, goes on there; returns when someone switches back.
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
