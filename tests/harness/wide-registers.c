/* Lets a User-Mode Linux kernel run on a processor whose register state is larger than the kernel knows (AMX).
 *
 * Such a kernel reads and writes the floating-point registers of its processes with PTRACE_GETREGSET and
 * PTRACE_SETREGSET (NT_X86_XSTATE) and a buffer of fixed size, up to the protection keys. The host accepts a write only if
 * it has the full size of the processor's state, so on a processor with AMX every write fails and the kernel dies at
 * once. Preloaded into the kernel, this gives each write its full size: what the buffer holds comes from the kernel, what
 * lies behind it (the AMX tiles) is put into its initial state, which is what processes inside never leave.
 *
 * Build: cc -shared -fPIC -O2 -o wide-registers.so wide-registers.c
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef NT_X86_XSTATE
#define NT_X86_XSTATE 0x202
#endif

/* Larger than any state so far (11 008 bytes with AMX). */
enum { FULL = 32768 };
/* Where the bits of what is in use lie (Intel SDM, volume 1, section 13.4.2), and those of AMX. */
enum { XSTATE_BV = 512 };
static const uint64_t AMX = (1ULL << 17) | (1ULL << 18);

/* The system call itself returns what it reads where glibc's function passes a pointer. */
static long raw(long request, long pid, void *address, void *data) {
    return syscall(SYS_ptrace, request, pid, address, data);
}

static long set_registers(long pid, struct iovec *given) {
    static __thread char full[FULL] __attribute__((aligned(64)));
    struct iovec whole = { full, sizeof full };
    long result = raw(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, given);
    if (result == 0)
        return 0;
    if (raw(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &whole) != 0)
        return -1;
    if (given->iov_len >= whole.iov_len)
        return raw(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, given);
    memcpy(full, given->iov_base, given->iov_len);
    memset(full + given->iov_len, 0, whole.iov_len - given->iov_len);
    uint64_t in_use;
    memcpy(&in_use, full + XSTATE_BV, sizeof in_use);
    in_use &= ~AMX;
    memcpy(full + XSTATE_BV, &in_use, sizeof in_use);
    return raw(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &whole);
}

long ptrace(enum __ptrace_request request, ...) {
    va_list arguments;
    va_start(arguments, request);
    long pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);
    if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE)
        return set_registers(pid, data);
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        long word = 0;
        if (raw(request, pid, address, &word) < 0)
            return -1;
        errno = 0;
        return word;
    }
    return raw(request, pid, address, data);
}
