// One fiber per CUDA thread of a block. A fiber runs until it ends, reaches a barrier or a warp exchange.
enum { SHIM_READY, SHIM_AT_BARRIER, SHIM_AT_WARP, SHIM_DONE };
enum { SHIM_MAX_THREADS = 1024, SHIM_STACK = 64 * 1024 };
struct shim_fiber { void *context; int state, line, value_valid; unsigned mask; unsigned long long value; };
static shim_fiber shim_fibers[SHIM_MAX_THREADS];
static char *shim_stacks;
static unsigned shim_current, shim_threads;
static void *shim_main_context;
extern "C" void *mmap(void *, size_t, int, int, int, long) noexcept;

#if defined(__x86_64__) && !defined(SHIM_UCONTEXT)
// A switch in a dozen instructions: swapcontext would make a system call each time to save the signal mask.
extern "C" void shim_switch(void **save, void *load);
asm(".text\n.type shim_switch,@function\n.globl shim_switch\n.hidden shim_switch\nshim_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n.size shim_switch,.-shim_switch\n");
static void *shim_context(unsigned t, void (*entry)()) {
    void **top = (void **)(shim_stacks + (size_t)(t + 1) * SHIM_STACK);
    *--top = 0;               // The return address of entry, which never returns; the stack is aligned as after a call.
    *--top = (void *)entry;
    for (int k = 0; k < 6; ++k) *--top = 0;
    return top;
}
#else
#include <ucontext.h>
static ucontext_t shim_contexts[SHIM_MAX_THREADS + 1];
static void shim_switch(void **save, void *load) {
    ucontext_t *here = save == &shim_main_context ? &shim_contexts[SHIM_MAX_THREADS] : (ucontext_t *)*save;
    *save = here;
    swapcontext(here, (ucontext_t *)load);
}
static void *shim_context(unsigned t, void (*entry)()) {
    ucontext_t *c = &shim_contexts[t];
    getcontext(c);
    c->uc_stack.ss_sp = shim_stacks + (size_t)t * SHIM_STACK;
    c->uc_stack.ss_size = SHIM_STACK;
    c->uc_link = 0;
    makecontext(c, entry, 0);
    return c;
}
#endif

static void shim_entry() {
    shim_body(shim_arguments);
    shim_fibers[shim_current].state = SHIM_DONE;
    shim_switch(&shim_fibers[shim_current].context, shim_main_context);
    __builtin_unreachable();
}
static __attribute__((noinline)) void shim_yield_now(int state, int line, unsigned mask) {
    unsigned me = shim_current;
    shim_fiber &f = shim_fibers[me];
    f.state = state; f.line = line; f.mask = mask;
    shim_switch(&f.context, shim_main_context);
    shim_place(me);
}
// Called through a volatile pointer, so that the compiler assumes that a barrier may change any memory.
static void (*volatile shim_yield)(int, int, unsigned) = &shim_yield_now;
#define __syncthreads() shim_yield(SHIM_AT_BARRIER, __LINE__, 0)
#define SHIM_FULL 0xffffffffu
static inline void __syncwarp(unsigned mask = SHIM_FULL) { shim_yield(SHIM_AT_WARP, 0, mask); }

// True where every running thread that the mask of a waiting one names waits too.
static bool shim_warp_complete(unsigned t) {
    unsigned first = t / 32 * 32;
    for (unsigned lane = 0; lane < 32 && first + lane < shim_threads; ++lane)
        if ((shim_fibers[t].mask >> lane & 1) && shim_fibers[first + lane].state != SHIM_DONE &&
            shim_fibers[first + lane].state != SHIM_AT_WARP)
            return false;
    return true;
}
// Opens what can be opened: complete warp exchanges, else the barrier that all running threads wait at.
static int shim_release(bool *finished) {
    static bool complete[SHIM_MAX_THREADS];
    unsigned running = 0, waiting = 0, opened = 0;
    int line = 0;
    for (unsigned t = 0; t < shim_threads; ++t)
        complete[t] = shim_fibers[t].state == SHIM_AT_WARP && shim_warp_complete(t);
    for (unsigned t = 0; t < shim_threads; ++t) {
        shim_fiber &f = shim_fibers[t];
        running += f.state != SHIM_DONE;
        if (complete[t]) { f.state = SHIM_READY; ++opened; }
        if (f.state != SHIM_AT_BARRIER) continue;
        if (line && f.line != line) return SHIM_DIVERGED;
        line = f.line;
        ++waiting;
    }
    *finished = running == 0;
    if (*finished || opened) return SHIM_OK;
    if (waiting != running) return SHIM_DEADLOCK;
    for (unsigned t = 0; t < shim_threads; ++t)
        if (shim_fibers[t].state == SHIM_AT_BARRIER) shim_fibers[t].state = SHIM_READY;
    return SHIM_OK;
}
static int shim_block(unsigned threads, int reverse) {
    if (!shim_stacks)  // PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
        shim_stacks = (char *)mmap(0, (size_t)SHIM_MAX_THREADS * SHIM_STACK, 3, 0x4022, -1, 0);
    shim_threads = threads;
    for (unsigned t = 0; t < threads; ++t) shim_fibers[t] = {shim_context(t, shim_entry), SHIM_READY, 0, 0, 0, 0};
    for (bool finished = false; !finished;) {
        for (unsigned k = 0; k < threads; ++k) {
            shim_current = reverse ? threads - 1 - k : k;
            if (shim_fibers[shim_current].state != SHIM_READY) continue;
            shim_place(shim_current);
            shim_switch(&shim_main_context, shim_fibers[shim_current].context);
        }
        if (int status = shim_release(&finished)) return status;
    }
    return SHIM_OK;
}

// ---- warp exchanges ----------------------------------------------------------------------------------------------
static inline unsigned shim_lane_thread() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
// Reads what the lane `source` brought to this exchange; 0xff bytes where it does not take part, as on the device
// nothing is promised there.
template <class T> static T shim_exchange(unsigned mask, T value, int source) {
    unsigned me = shim_lane_thread(), from = me / 32 * 32 + source;
    shim_fiber &f = shim_fibers[me];
    f.value = 0; f.value_valid = 1;
    __builtin_memcpy(&f.value, &value, sizeof value);
    shim_yield(SHIM_AT_WARP, 0, mask);
    T result;
    __builtin_memset(&result, 0xff, sizeof result);
    if (from < shim_threads && (mask >> source & 1) && shim_fibers[from].value_valid)
        __builtin_memcpy(&result, &shim_fibers[from].value, sizeof result);
    shim_yield(SHIM_AT_WARP, 0, mask);
    f.value_valid = 0;
    return result;
}
static inline int shim_lane() { return shim_lane_thread() % 32; }
template <class T> static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    return shim_exchange(mask, v, shim_lane() / width * width + lane % width);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
    int source = shim_lane() ^ bits;
    return shim_exchange(mask, v, source / width > shim_lane() / width ? shim_lane() : source);
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
    int lane = shim_lane();
    return shim_exchange(mask, v, lane % width + (int)delta < width ? lane + (int)delta : lane);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
    int lane = shim_lane();
    return shim_exchange(mask, v, lane % width - (int)delta >= 0 ? lane - (int)delta : lane);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned me = shim_lane_thread(), first = me / 32 * 32, result = 0;
    shim_fibers[me].value = predicate != 0; shim_fibers[me].value_valid = 1;
    shim_yield(SHIM_AT_WARP, 0, mask);
    for (unsigned lane = 0; lane < 32 && first + lane < shim_threads; ++lane)
        if ((mask >> lane & 1) && shim_fibers[first + lane].value_valid && shim_fibers[first + lane].value)
            result |= 1u << lane;
    shim_yield(SHIM_AT_WARP, 0, mask);
    shim_fibers[me].value_valid = 0;
    return result;
}
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
