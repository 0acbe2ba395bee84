/* Preloaded, shifts the wall clock of a process by the seconds that a mapped file holds, whenever they change.
 *
 * Only what reads the wall clock is shifted; a wait until a time of it is shifted back, so that it ends when the process
 * thinks that it does. libfaketime does more, but its 0.9.10 fails sleeps on the monotonic clock, which must stay as it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define EPOCH_S 1000000000L /* times later than this are of the wall clock: no machine has been up for 30 years */

static volatile long *shift_s;
static long (*real_syscall)(long, ...);

__attribute__((constructor)) static void prepare(void) {
    const char *path = getenv("SHIFTED_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) shift_s = mapped;
    if (file >= 0) close(file);
}

static long shift(void) { return shift_s ? *shift_s : 0; }

static long pass_on(long number, long *a) {
    if (!real_syscall) real_syscall = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    long asked[6] = {(long)which, (long)now};
    int failed = (int)pass_on(SYS_clock_gettime, asked);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    long asked[6] = {(long)now, (long)zone};
    int failed = (int)pass_on(SYS_gettimeofday, asked);
    if (!failed) now->tv_sec += shift();
    return failed;
}

time_t time(time_t *now) {
    struct timespec read;
    clock_gettime(CLOCK_REALTIME, &read);
    if (now) *now = read.tv_sec;
    return read.tv_sec;
}

static const struct timespec *unshifted(const struct timespec *until, struct timespec *held) {
    if (!until || until->tv_sec < EPOCH_S) return until;
    *held = *until;
    held->tv_sec -= shift();
    return held;
}

int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until) {
    static int (*next)(sem_t *, const struct timespec *);
    if (!next) next = (int (*)(sem_t *, const struct timespec *))dlsym(RTLD_NEXT, "sem_timedwait");
    struct timespec held;
    return next(sem, unshifted(until, &held));
}

long syscall(long number, ...) { /* as absl waits, under gRPC */
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    struct timespec held;
    if (number == SYS_futex && (a[1] & FUTEX_CLOCK_REALTIME)) a[3] = (long)unshifted((struct timespec *)a[3], &held);
    return pass_on(number, a);
}
