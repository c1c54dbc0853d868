/* Makes one call of a process go wrong: LD_PRELOAD this.
 *
 *   FAULT_BELOW   calls on files whose path begins with this are counted
 *   FAULT_CALLS   which ones, as "name" or "write"; see the table below
 *   FAULT_AT      the number, from 1, of the call that goes wrong; 0 counts only
 *   FAULT_HOW     "KILL", "INT", "TERM", "STOP": that signal, before the call; else an errno, which the call fails with
 *   FAULT_COUNT   a file that gets one byte for each call counted, whichever process makes it
 *   FAULT_STICKY  with an errno: every call from that one on fails, as on a disk that is full
 *
 * Build: gcc -shared -fPIC -O1 -o shim.so shim.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NAME = 1, WRITE = 2, READ = 4, SYNC = 8, CLOSE = 16 };

static const struct { const char *word; int kinds; } WORDS[] = {
    {"name", NAME}, {"write", WRITE}, {"read", READ}, {"sync", SYNC}, {"close", CLOSE},
    {"out", NAME | WRITE | SYNC}, {"any", NAME | WRITE | READ | SYNC | CLOSE},
};

static __thread int inside;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static int counted(int kind) {
    const char *word = setting("FAULT_CALLS", "");
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++)
        if (!strcmp(WORDS[i].word, word)) return WORDS[i].kinds & kind;
    return 0;
}

/* Counts over all processes: the length of a file that is only appended to. */
static long next_number(void) {
    int fd = syscall(SYS_openat, AT_FDCWD, setting("FAULT_COUNT", "/dev/null"), O_RDWR | O_APPEND | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    syscall(SYS_write, fd, "x", 1);
    long length = syscall(SYS_lseek, fd, 0L, SEEK_CUR);
    syscall(SYS_close, fd);
    return length;
}

/* Returns whether the call is to fail; errno says how. */
static int goes_wrong(int kind, const char *path) {
    const char *below = setting("FAULT_BELOW", NULL);
    if (inside || !below || !counted(kind) || strncmp(path, below, strlen(below))) return 0;
    inside = 1;
    int before = errno;
    long number = next_number(), at = atol(setting("FAULT_AT", "0"));
    const char *how = setting("FAULT_HOW", "0");
    inside = 0;
    errno = before;
    if (!at || number < at || (number > at && !getenv("FAULT_STICKY"))) return 0;
    int signum = !strcmp(how, "KILL") ? SIGKILL : !strcmp(how, "INT") ? SIGINT : !strcmp(how, "TERM") ? SIGTERM
               : !strcmp(how, "STOP") ? SIGSTOP : 0;
    if (signum) {
        syscall(SYS_kill, syscall(SYS_getpid), signum);
        return 0;
    }
    errno = atoi(how);
    return 1;
}

static int fd_goes_wrong(int kind, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlink, link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return goes_wrong(kind, path);
}

static int at_goes_wrong(int kind, int directory, const char *name) {
    if (!name) return 0;
    if (name[0] == '/') return goes_wrong(kind, name);
    char link[64], path[8192];
    snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", directory);
    long length = syscall(SYS_readlink, link, path, 4095);
    if (length < 0 || strlen(name) > 4000) return 0;
    path[length] = '/';
    strcpy(path + length + 1, name);
    return goes_wrong(kind, path);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define WRONG_FD(kind, fd) if (fd_goes_wrong(kind, fd)) return -1
#define WRONG_AT(kind, directory, path) if (at_goes_wrong(kind, directory, path)) return -1

/* Opening counts as naming where it makes a file, else as reading. */
#define OPENING int mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, int); va_end(list); } \
    int kind = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? NAME : READ
int open(const char *path, int flags, ...) { OPENING; REAL(open); WRONG_AT(kind, AT_FDCWD, path); return real(path, flags, mode); }
int open64(const char *path, int flags, ...) { OPENING; REAL(open64); WRONG_AT(kind, AT_FDCWD, path); return real(path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { OPENING; REAL(openat); WRONG_AT(kind, at, path); return real(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { OPENING; REAL(openat64); WRONG_AT(kind, at, path); return real(at, path, flags, mode); }

int link(const char *old, const char *new) { REAL(link); WRONG_AT(NAME, AT_FDCWD, new); return real(old, new); }
int linkat(int a, const char *old, int b, const char *new, int how) { REAL(linkat); WRONG_AT(NAME, b, new); return real(a, old, b, new, how); }
int rename(const char *old, const char *new) { REAL(rename); WRONG_AT(NAME, AT_FDCWD, new); return real(old, new); }
int renameat(int a, const char *old, int b, const char *new) { REAL(renameat); WRONG_AT(NAME, b, new); return real(a, old, b, new); }
int renameat2(int a, const char *old, int b, const char *new, unsigned how) { REAL(renameat2); WRONG_AT(NAME, b, new); return real(a, old, b, new, how); }
int unlink(const char *path) { REAL(unlink); WRONG_AT(NAME, AT_FDCWD, path); return real(path); }
int unlinkat(int at, const char *path, int how) { REAL(unlinkat); WRONG_AT(NAME, at, path); return real(at, path, how); }
int rmdir(const char *path) { REAL(rmdir); WRONG_AT(NAME, AT_FDCWD, path); return real(path); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); WRONG_AT(NAME, AT_FDCWD, path); return real(path, mode); }

ssize_t write(int fd, const void *data, size_t size) { REAL(write); WRONG_FD(WRITE, fd); return real(fd, data, size); }
ssize_t writev(int fd, const struct iovec *data, int count) { REAL(writev); WRONG_FD(WRITE, fd); return real(fd, data, count); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { REAL(pwrite); WRONG_FD(WRITE, fd); return real(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { REAL(pwrite64); WRONG_FD(WRITE, fd); return real(fd, data, size, at); }
ssize_t pwritev(int fd, const struct iovec *data, int count, off_t at) { REAL(pwritev); WRONG_FD(WRITE, fd); return real(fd, data, count, at); }
ssize_t pwritev64(int fd, const struct iovec *data, int count, off64_t at) { REAL(pwritev64); WRONG_FD(WRITE, fd); return real(fd, data, count, at); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); WRONG_FD(WRITE, fd); return real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); WRONG_FD(WRITE, fd); return real(fd, size); }
ssize_t copy_file_range(int in, off64_t *a, int out, off64_t *b, size_t size, unsigned how) {
    REAL(copy_file_range);
    WRONG_FD(WRITE, out);
    WRONG_FD(READ, in);
    return real(in, a, out, b, size, how);
}
ssize_t sendfile(int out, int in, off_t *at, size_t size) { REAL(sendfile); WRONG_FD(WRITE, out); WRONG_FD(READ, in); return real(out, in, at, size); }
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) { REAL(sendfile64); WRONG_FD(WRITE, out); WRONG_FD(READ, in); return real(out, in, at, size); }

int fsync(int fd) { REAL(fsync); WRONG_FD(SYNC, fd); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); WRONG_FD(SYNC, fd); return real(fd); }

ssize_t read(int fd, void *data, size_t size) { REAL(read); WRONG_FD(READ, fd); return real(fd, data, size); }
ssize_t readv(int fd, const struct iovec *data, int count) { REAL(readv); WRONG_FD(READ, fd); return real(fd, data, count); }
ssize_t pread(int fd, void *data, size_t size, off_t at) { REAL(pread); WRONG_FD(READ, fd); return real(fd, data, size, at); }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) { REAL(pread64); WRONG_FD(READ, fd); return real(fd, data, size, at); }

/* A close that fails has closed all the same. */
int close(int fd) {
    REAL(close);
    int wrong = fd_goes_wrong(CLOSE, fd), number = errno, result = real(fd);
    if (wrong) errno = number;
    return wrong ? -1 : result;
}
