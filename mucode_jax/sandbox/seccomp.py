"""System-call filters (seccomp-BPF, x86-64): what is not named here is refused.

Two filters are stacked. The server's is installed once and lists every call that Python, numpy and
the server itself need. The program's is small, because it is installed anew for every program: it
takes away what only the server needs (forking, signals to others).

Covers: processes, signals to others, sockets, tracing, keys, System V and POSIX message queues,
io_uring, memory files, mounts, namespaces, modules, clocks. Does not cover: reading and writing of
files (namespaces or Landlock do) and the use of time and memory (limits do).
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable

from . import system

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_ANY_BIT = 0x15, 0x35, 0x45
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000
# glibc tries calls that are newer than this one and falls back on "no such call".
_FIRST_NEW_CALL = 424

_READ = """
0 read 1 write 3 close 5 fstat 7 poll 8 lseek 17 pread64 18 pwrite64 19 readv 20 writev 23 select
40 sendfile 72 fcntl 74 fsync 75 fdatasync 77 ftruncate 187 readahead 221 fadvise64 270 pselect6
271 ppoll 285 fallocate 295 preadv 296 pwritev 326 copy_file_range 327 preadv2 328 pwritev2
2 open 4 stat 6 lstat 16 ioctl 21 access 76 truncate 78 getdents 79 getcwd 80 chdir 81 fchdir
89 readlink 217 getdents64 257 openat 262 newfstatat 267 readlinkat 269 faccessat 332 statx
434 pidfd_open 439 faccessat2 137 statfs 138 fstatfs 32 dup 33 dup2 292 dup3 22 pipe 293 pipe2
436 close_range
"""
_CHANGE = """
82 rename 83 mkdir 84 rmdir 85 creat 86 link 87 unlink 88 symlink 95 umask 258 mkdirat 263 unlinkat
264 renameat 265 linkat 266 symlinkat 316 renameat2
"""
# Landlock has no word for these, so they are left out where it is all that guards the files.
_ATTRIBUTES = """
90 chmod 91 fchmod 92 chown 93 fchown 94 lchown 132 utime 235 utimes 260 fchownat 261 futimesat
268 fchmodat 280 utimensat 452 fchmodat2
"""
_MEMORY = """
9 mmap 10 mprotect 11 munmap 12 brk 25 mremap 26 msync 27 mincore 28 madvise
"""
_PROCESS = """
13 rt_sigaction 14 rt_sigprocmask 15 rt_sigreturn 24 sched_yield 34 pause 35 nanosleep 36 getitimer
37 alarm 38 setitimer 39 getpid 60 exit 61 wait4 63 uname 96 gettimeofday 97 getrlimit 98 getrusage
99 sysinfo 100 times 102 getuid 104 getgid 107 geteuid 108 getegid 110 getppid 111 getpgrp
115 getgroups 118 getresuid 120 getresgid 121 getpgid 124 getsid 127 rt_sigpending
128 rt_sigtimedwait 130 rt_sigsuspend 131 sigaltstack 140 getpriority 143 sched_getparam
145 sched_getscheduler 146 sched_get_priority_max 147 sched_get_priority_min 158 arch_prctl
160 setrlimit 186 gettid 201 time 202 futex 204 sched_getaffinity 218 set_tid_address
222 timer_create 223 timer_settime 224 timer_gettime 225 timer_getoverrun 226 timer_delete
228 clock_gettime 229 clock_getres 230 clock_nanosleep 231 exit_group 247 waitid 219 restart_syscall
273 set_robust_list 274 get_robust_list 283 timerfd_create 286 timerfd_settime 287 timerfd_gettime
302 prlimit64 309 getcpu 318 getrandom 324 membarrier 334 rseq
"""
_EVENTS = """
213 epoll_create 232 epoll_wait 233 epoll_ctl 281 epoll_pwait 284 eventfd 290 eventfd2
291 epoll_create1 441 epoll_pwait2
"""
# Only ends of a socket pair exist inside: these reach nothing that is outside.
_PAIR_ENDS = """
44 sendto 45 recvfrom 47 recvmsg 48 shutdown 51 getsockname 52 getpeername 54 setsockopt
55 getsockopt
"""
_IOCTL, _SOCKETPAIR, _CLONE, _KILL = 16, 53, 56, 62
_FCNTL, _PRCTL, _TGKILL, _PRLIMIT = 72, 157, 234, 302
# No F_SETOWN and F_SETSIG; no F_OFD_SETLK: such a lock would stay on the next program's stdout.
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1031, 1032)
_IOCTL_REQUESTS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # no TIOCSTI
_PR_SET_NAME, _PR_GET_NAME = 15, 16

Instruction = tuple[int, int, int, int]


def _numbers(*groups: str) -> set[int]:
    return {int(word) for group in groups for word in group.split()[::2]}


def _load_argument(index: int) -> Instruction:
    return (_LOAD, 0, 0, 16 + 8 * index)


def _refuse(number: int) -> Instruction:
    return (_RETURN, 0, 0, _ERRNO | number)


def _only_if_argument(call: int, index: int, values: tuple[int, ...]) -> list[Instruction]:
    """Refuses `call` unless its argument (low 32 bits) is one of `values`; otherwise goes on."""
    body = [_load_argument(index)]
    for position, value in enumerate(values):
        body.append((_JUMP_EQUAL, len(values) - position, 0, value))
    body += [_refuse(errno.EPERM), (_LOAD, 0, 0, 0)]
    return [(_JUMP_EQUAL, 0, len(body), call), *body]


def _preamble() -> list[Instruction]:
    return [
        (_LOAD, 0, 0, 4),
        (_JUMP_EQUAL, 1, 0, _ARCH_X86_64),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, 0),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]


def server_filter(*, file_attributes: bool) -> bytes:
    """The filter of the server and everything it starts; `file_attributes`: chmod and the like."""
    groups = [_READ, _CHANGE, _MEMORY, _PROCESS, _EVENTS, _PAIR_ENDS]
    allowed = _numbers(*groups, _ATTRIBUTES) if file_attributes else _numbers(*groups)
    allowed |= {_PRCTL, _CLONE, _KILL, _TGKILL}
    code = _preamble()
    code += _only_if_argument(_FCNTL, 1, _FCNTL_COMMANDS)
    code += _only_if_argument(_IOCTL, 1, _IOCTL_REQUESTS)
    code += _only_if_argument(_PRLIMIT, 0, (0,))
    # A connected pair of streams (asyncio needs one); a datagram socket could name another address.
    code += [
        (_JUMP_EQUAL, 0, 7, _SOCKETPAIR),
        _load_argument(0),
        (_JUMP_EQUAL, 0, 4, 1),
        _load_argument(1),
        (_AND, 0, 0, 0xF),
        (_JUMP_EQUAL, 0, 1, 1),
        (_RETURN, 0, 0, _ALLOW),
        _refuse(errno.EPERM),
    ]
    for number in sorted(allowed):
        code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    code += [
        (_JUMP_GREATER_EQUAL, 0, 1, _FIRST_NEW_CALL),
        _refuse(errno.ENOSYS),
        _refuse(errno.EPERM),
    ]
    return _assemble(code)


_PID_PLACE = 0x5A5AA5A5


def program_filter() -> bytes:
    """What is taken from a program beyond the server's filter; `install` fills in its own pid."""
    code = _preamble()
    code += [
        (_JUMP_EQUAL, 0, 4, _CLONE),
        _load_argument(0),
        (_JUMP_ANY_BIT, 1, 0, _CLONE_THREAD),
        _refuse(errno.EPERM),
        (_LOAD, 0, 0, 0),
    ]
    code += _only_if_argument(_KILL, 0, (_PID_PLACE,))
    code += _only_if_argument(_TGKILL, 0, (_PID_PLACE,))
    code += _only_if_argument(_PRCTL, 0, (_PR_SET_NAME, _PR_GET_NAME))
    code += [(_RETURN, 0, 0, _ALLOW)]
    return _assemble(code)


def _assemble(code: list[Instruction]) -> bytes:
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def prepare(filter_: bytes) -> Callable[[int], None]:
    """A function that puts the calling process, and all it starts, under `filter_` for good.

    It is given the process's own pid, the only one that a program may signal, and raises OSError.
    All that can be done once is done here: it is called anew for every program.

    Args:
      filter_: what `server_filter` or `program_filter` returned.
    """
    code = ctypes.create_string_buffer(filter_, len(filter_))
    mark = struct.pack("I", _PID_PLACE)
    places = [at for at in range(4, len(filter_), 8) if filter_[at : at + 4] == mark]
    header = struct.pack("HxxxxxxQ", len(filter_) // 8, ctypes.addressof(code))
    pointer = ctypes.create_string_buffer(header, len(header))

    def install(pid: int) -> None:
        for place in places:
            struct.pack_into("I", code, place, pid)
        set_filter()

    set_filter = system.prepared_prctl("seccomp", system.PR_SET_SECCOMP, 2, pointer)
    return install
