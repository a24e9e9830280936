/* A wall clock that a test sets: what a program is told of the time of day is shifted by the nanoseconds that stand in
 * the file $HOLDFAST_TEST_CLOCK.NAME, NAME being the program's own; without such a file nothing is shifted. Waits until a
 * time of day are shifted back, so that they take as long as they should. The machine's clock stays as it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long zero;
static volatile long long *shift = &zero;

__attribute__((constructor)) static void begin(int argc, char **argv) {
  const char *base = getenv("HOLDFAST_TEST_CLOCK");
  if (!base || argc < 1 || !argv[0]) return;
  const char *name = strrchr(argv[0], '/');
  char path[4096];
  snprintf(path, sizeof path, "%s.%s", base, name ? name + 1 : argv[0]);
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *at = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (at != MAP_FAILED) shift = at;
}

static void add(struct timespec *time, long long ns) {
  long long all = time->tv_sec * 1000000000LL + time->tv_nsec + ns;
  if (all < 0) all = 0;
  time->tv_sec = all / 1000000000LL;
  time->tv_nsec = all % 1000000000LL;
}

static int real_time(struct timespec *time) { return (int)syscall(SYS_clock_gettime, CLOCK_REALTIME, time); }

int clock_gettime(clockid_t clock, struct timespec *time) {
  int failed = (int)syscall(SYS_clock_gettime, clock, time);
  if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) add(time, *shift);
  return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  struct timespec now;
  (void)zone;
  int failed = real_time(&now);
  if (failed) return failed;
  add(&now, *shift);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  real_time(&now);
  add(&now, *shift);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
  static __typeof__(&pthread_cond_timedwait) next;
  if (!next) next = NEXT(pthread_cond_timedwait);
  /* One that waits by another clock has said so when it was made, and names times of that clock: those are small. */
  struct timespec real = *until, now;
  real_time(&now);
  if (llabs((long long)until->tv_sec - (long long)now.tv_sec) < 100LL * 365 * 86400 && until->tv_sec > 1000000000)
    add(&real, -*shift);
  return next(cond, mutex, &real);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
  static __typeof__(&pthread_mutex_timedlock) next;
  if (!next) next = NEXT(pthread_mutex_timedlock);
  struct timespec real = *until;
  add(&real, -*shift);
  return next(mutex, &real);
}

int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict until) {
  static __typeof__(&sem_timedwait) next;
  if (!next) next = NEXT(sem_timedwait);
  struct timespec real = *until;
  add(&real, -*shift);
  return next(sem, &real);
}
