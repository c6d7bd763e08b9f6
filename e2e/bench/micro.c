// What single system calls and small mixes of them cost. Static, run natively and in containers by
// bench.py.
//
//   micro [--dir DIR] [--quick] [CASE...]   one line a case: name TAB best-ns TAB median-ns, per
//   operation micro --crowd HOGS                      calls a second of one thread beside HOGS
//   threads that compute micro --child                           ends at once (what the spawn case
//   starts)
//
// A case runs kRounds times; the best round says what it costs, the median what it costs today.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kRounds = 7, kPage = 4096, kChunk = 64 * 1024, kTouched = 32 << 20, kMaxHogs = 16 };

static const char* directory = "/tmp";
static const char* self;
static int divisor = 1;
static char buffer[kChunk];

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void die(const char* what) {
    fprintf(stderr, "micro: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void check(int ok, const char* what) {
    if (!ok) {
        die(what);
    }
}

// ---------------------------------------------------------------- cases: each does `n` operations

static int data_fd = -1;
static char data_path[300], new_path[300];

static void open_data(void) {
    if (data_fd >= 0) {
        return;
    }
    snprintf(data_path, sizeof data_path, "%s/micro-data", directory);
    snprintf(new_path, sizeof new_path, "%s/micro-new", directory);
    data_fd = open(data_path, O_CREAT | O_RDWR | O_TRUNC, 0644);
    check(data_fd >= 0, data_path);
    memset(buffer, 1, sizeof buffer);
    check(pwrite(data_fd, buffer, sizeof buffer, 0) == sizeof buffer, "write of the data file");
}

static void getpid_case(long n) {
    while (n--) {
        syscall(SYS_getpid);
    }
}

static void getppid_case(long n) {
    while (n--) {
        syscall(SYS_getppid);
    }
}

static void clock_case(long n) {
    struct timespec t;
    while (n--) {
        clock_gettime(CLOCK_MONOTONIC, &t);
    }
}

static void write_4k(long n) {
    while (n--) {
        check(pwrite(data_fd, buffer, kPage, 0) == kPage, "pwrite");
    }
}

static void read_4k(long n) {
    while (n--) {
        check(pread(data_fd, buffer, kPage, 0) == kPage, "pread");
    }
}

static void read_64k(long n) {
    while (n--) {
        check(pread(data_fd, buffer, kChunk, 0) == kChunk, "pread");
    }
}

static void fstat_case(long n) {
    struct stat s;
    while (n--) {
        check(fstat(data_fd, &s) == 0, "fstat");
    }
}

static void stat_case(long n) {
    struct stat s;
    while (n--) {
        check(stat(data_path, &s) == 0, "stat");
    }
}

static void open_close(long n) {
    while (n--) {
        int fd = open(data_path, O_RDONLY);
        check(fd >= 0, "open");
        close(fd);
    }
}

static void create_unlink(long n) {
    while (n--) {
        int fd = open(new_path, O_CREAT | O_EXCL | O_RDWR, 0644);
        check(fd >= 0, "create");
        close(fd);
        check(unlink(new_path) == 0, "unlink");
    }
}

static void write_and_read(int from, int to, long n) {
    char c = 1;
    while (n--) {
        check(write(from, &c, 1) == 1 && read(to, &c, 1) == 1, "one byte through");
    }
}

static void pipe_case(long n) {
    int ends[2];
    check(pipe(ends) == 0, "pipe");
    write_and_read(ends[1], ends[0], n);
    close(ends[0]);
    close(ends[1]);
}

static void socketpair_case(long n) {
    int ends[2];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
    write_and_read(ends[0], ends[1], n);
    close(ends[0]);
    close(ends[1]);
}

static char* map_private(size_t size) {
    char* at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED, "mmap");
    return at;
}

static void touch_all(char* at, size_t size) {
    for (size_t i = 0; i < size; i += kPage) {
        ((volatile char*)at)[i] = 1;
    }
}

static void map_cycle(long n) {
    while (n--) {
        char* at = map_private(kChunk);
        touch_all(at, kChunk);
        munmap(at, kChunk);
    }
}

// `n` is in pages; the mapping and its end are not counted by bench.py's arithmetic, being a few of
// many.
static void touch_pages(long n) {
    char* at = map_private(n * kPage);
    touch_all(at, n * kPage);
    munmap(at, n * kPage);
}

static volatile sig_atomic_t signals_seen;

static void count_signal(int number) {
    (void)number;
    signals_seen++;
}

static void signal_self(long n) {
    signal(SIGUSR1, count_signal);
    pid_t me = getpid();
    long before = signals_seen, wanted = n;
    while (n--) {
        kill(me, SIGUSR1);
    }
    check(signals_seen - before == wanted, "a signal was lost");
}

static void* nothing(void* argument) { return argument; }

static void thread_case(long n) {
    while (n--) {
        pthread_t thread;
        check(pthread_create(&thread, NULL, nothing, NULL) == 0, "pthread_create");
        pthread_join(thread, NULL);
    }
}

struct Echo {
    int in, out;
};

static void* echo(void* argument) {
    struct Echo* ends = argument;
    char c;
    while (read(ends->in, &c, 1) == 1) {
        check(write(ends->out, &c, 1) == 1, "echo");
    }
    return NULL;
}

static void thread_ping_pong(long n) {
    int there[2], back[2];
    check(pipe(there) == 0 && pipe(back) == 0, "pipe");
    struct Echo ends = {there[0], back[1]};
    pthread_t thread;
    check(pthread_create(&thread, NULL, echo, &ends) == 0, "pthread_create");
    write_and_read(there[1], back[0], n);
    close(there[1]);
    pthread_join(thread, NULL);
    close(there[0]);
    close(back[0]);
    close(back[1]);
}

static sem_t there_sem, back_sem;

static void* echo_semaphores(void* count) {
    for (long n = *(long*)count; n > 0; n--) {
        sem_wait(&there_sem);
        sem_post(&back_sem);
    }
    return NULL;
}

static void semaphore_ping_pong(long n) {
    check(sem_init(&there_sem, 0, 0) == 0 && sem_init(&back_sem, 0, 0) == 0, "sem_init");
    pthread_t thread;
    check(pthread_create(&thread, NULL, echo_semaphores, &n) == 0, "pthread_create");
    for (long i = 0; i < n; i++) {
        sem_post(&there_sem);
        sem_wait(&back_sem);
    }
    pthread_join(thread, NULL);
}

// The caller to the first or the last of the CPUs in `all`.
static void pin(const cpu_set_t* all, int last) {
    int cpu = -1;
    for (int i = 0; i < CPU_SETSIZE && (last || cpu < 0); i++) {
        cpu = CPU_ISSET(i, all) ? i : cpu;
    }
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    check(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
}

// Of two processes, pinned to a CPU each where `cpus` are given.
static void process_trips(long n, const cpu_set_t* cpus) {
    int there[2], back[2];
    check(pipe(there) == 0 && pipe(back) == 0, "pipe");
    pid_t child = fork();
    check(child >= 0, "fork");
    if (cpus) {
        pin(cpus, child == 0);
    }
    if (child == 0) {
        close(there[1]);
        close(back[0]);
        struct Echo ends = {there[0], back[1]};
        echo(&ends);
        _exit(0);
    }
    close(there[0]);
    close(back[1]);
    write_and_read(there[1], back[0], n);
    close(there[1]);
    close(back[0]);
    waitpid(child, NULL, 0);
}

static void process_ping_pong(long n) { process_trips(n, NULL); }

static void process_ping_pong_across(long n) {
    cpu_set_t cpus;
    check(sched_getaffinity(0, sizeof cpus, &cpus) == 0, "sched_getaffinity");
    process_trips(n, &cpus);
    check(sched_setaffinity(0, sizeof cpus, &cpus) == 0, "sched_setaffinity");
}

static void fork_wait(long n) {
    while (n--) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (child == 0) {
            _exit(0);
        }
        check(waitpid(child, NULL, 0) == child, "waitpid");
    }
}

static void spawn_wait(long n) {
    char* const arguments[] = {(char*)self, "--child", NULL};
    char* const environment[] = {NULL};
    while (n--) {
        pid_t child;
        int status;
        check(posix_spawn(&child, self, NULL, NULL, arguments, environment) == 0, "posix_spawn");
        check(waitpid(child, &status, 0) == child && status == 0, "the spawned child");
    }
}

static const struct Case {
    const char* name;
    void (*run)(long n);
    long count;  // operations a round
} cases[] = {
    {"getpid", getpid_case, 20000},
    {"getppid", getppid_case, 20000},
    {"clock_gettime", clock_case, 200000},
    {"write 4 KiB", write_4k, 5000},
    {"read 4 KiB", read_4k, 5000},
    {"read 64 KiB", read_64k, 2000},
    {"fstat", fstat_case, 10000},
    {"stat", stat_case, 5000},
    {"open+close", open_close, 3000},
    {"create+unlink", create_unlink, 1000},
    {"pipe write+read", pipe_case, 5000},
    {"socketpair write+read", socketpair_case, 5000},
    {"mmap+touch+munmap 64 KiB", map_cycle, 1000},
    {"touch a fresh page", touch_pages, kTouched / kPage},
    {"signal to self", signal_self, 2000},
    {"thread create+join", thread_case, 300},
    {"thread ping-pong", thread_ping_pong, 2000},
    {"semaphore ping-pong", semaphore_ping_pong, 2000},
    {"process ping-pong", process_ping_pong, 2000},
    {"process ping-pong, two CPUs", process_ping_pong_across, 2000},
    {"fork+wait", fork_wait, 100},
    {"posix_spawn+wait", spawn_wait, 50},
};

static int by_value(const void* a, const void* b) {
    double x = *(const double*)a, y = *(const double*)b;
    return (x > y) - (x < y);
}

static void measure(const struct Case* c) {
    double rounds[kRounds];
    long count = c->count / divisor > 0 ? c->count / divisor : 1;
    for (int i = 0; i < kRounds; i++) {
        double start = now_ns();
        c->run(count);
        rounds[i] = (now_ns() - start) / count;
    }
    qsort(rounds, kRounds, sizeof rounds[0], by_value);
    printf("%s\t%.1f\t%.1f\n", c->name, rounds[0], rounds[kRounds / 2]);
    fflush(stdout);
}

// ---------------------------------------------------------------- one caller in a crowd

static volatile int stop;

static void* compute(void* argument) {
    volatile long counter = 0;
    while (!stop) {
        counter++;
    }
    return argument;
}

static void* call(void* argument) {
    long* calls = argument;
    while (!stop) {
        syscall(SYS_getppid);
        (*calls)++;
    }
    return NULL;
}

static void crowd(int hogs) {
    pthread_t threads[kMaxHogs + 1];
    long calls = 0;
    check(hogs >= 0 && hogs <= kMaxHogs, "number of hogs");
    check(pthread_create(&threads[0], NULL, call, &calls) == 0, "pthread_create");
    for (int i = 0; i < hogs; i++) {
        check(pthread_create(&threads[i + 1], NULL, compute, NULL) == 0, "pthread_create");
    }
    double start = now_ns();
    struct timespec window = {2, 0};
    nanosleep(&window, NULL);
    stop = 1;
    double seconds = (now_ns() - start) / 1e9;
    for (int i = 0; i <= hogs; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("%.0f\n", calls / seconds);
}

int main(int argc, char** argv) {
    self = argv[0];
    int wanted = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--child") == 0) {
            return 0;
        }
        if (strcmp(argv[i], "--crowd") == 0 && i + 1 < argc) {
            crowd(atoi(argv[i + 1]));
            return 0;
        }
        if (strcmp(argv[i], "--dir") == 0 && i + 1 < argc) {
            directory = argv[++i];
        } else if (strcmp(argv[i], "--quick") == 0) {
            divisor = 10;
        } else {
            argv[1 + wanted++] = argv[i];
        }
    }
    open_data();
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        int named = wanted == 0;
        for (int i = 0; i < wanted; i++) {
            named |= strcmp(argv[1 + i], cases[c].name) == 0;
        }
        if (named) {
            measure(&cases[c]);
        }
    }
    unlink(data_path);
    return 0;
}
