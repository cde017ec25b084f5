"""System calls by name: their numbers on each machine, and which of them a replay may make with what arguments.

Owns: the lists that the seccomp filter is made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Machine:
    """A processor: its name in the audit interface and its numbers of the system calls, as far as it has them."""

    arch: int
    numbers: Mapping[str, int]


# Since number 424 both machines share their numbers.
_COMMON: Final = {
    "pidfd_send_signal": 424, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "clone3": 435, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
    "process_mrelease": 448, "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466, "file_setattr": 469,
}  # fmt: skip
MACHINES: Final = {
    "x86_64": Machine(
        0xC000_003E,
        {
            "seccomp": 317, "socket": 41, "socketpair": 53, "execve": 59, "execveat": 322, "ptrace": 101,
            "process_vm_writev": 311, "kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129,
            "rt_tgsigqueueinfo": 297, "fcntl": 72, "ioctl": 16, "mq_open": 240, "mq_unlink": 241,
            "shmget": 29, "shmat": 30, "shmctl": 31, "semget": 64, "semop": 65, "semctl": 66, "semtimedop": 220,
            "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "add_key": 248, "request_key": 249, "keyctl": 250,
            "chmod": 90, "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
            "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280, "setxattr": 188, "lsetxattr": 189,
            "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "prlimit64": 302,
            "sched_setaffinity": 203, "sched_setscheduler": 144, "sched_setparam": 142, "sched_setattr": 314,
            "setpriority": 141, "ioprio_set": 251, "migrate_pages": 256, "move_pages": 279, "settimeofday": 164,
            "clock_settime": 227, "adjtimex": 159, "clock_adjtime": 305, "sethostname": 170, "setdomainname": 171,
            "reboot": 169, "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313,
            "delete_module": 176, "swapon": 167, "swapoff": 168, "acct": 163, "quotactl": 179, "bpf": 321,
            "vhangup": 153, "setns": 308, "syslog": 103, "mount": 165, "umount2": 166, "pivot_root": 155,
            "fork": 57, "vfork": 58, "clone": 56, "iopl": 172, "ioperm": 173, "fanotify_init": 300,
            **_COMMON,
        },
    ),
    "aarch64": Machine(
        0xC000_00B7,
        {
            "seccomp": 277, "socket": 198, "socketpair": 199, "execve": 221, "execveat": 281, "ptrace": 117,
            "process_vm_writev": 271, "kill": 129, "tkill": 130, "tgkill": 131, "rt_sigqueueinfo": 138,
            "rt_tgsigqueueinfo": 240, "fcntl": 25, "ioctl": 29, "mq_open": 180, "mq_unlink": 181,
            "msgget": 186, "msgctl": 187, "msgrcv": 188, "msgsnd": 189, "semget": 190, "semctl": 191,
            "semtimedop": 192, "semop": 193, "shmget": 194, "shmctl": 195, "shmat": 196, "add_key": 217,
            "request_key": 218, "keyctl": 219, "fchmod": 52, "fchmodat": 53, "fchownat": 54, "fchown": 55,
            "utimensat": 88, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15,
            "fremovexattr": 16, "prlimit64": 261, "sched_setaffinity": 122, "sched_setscheduler": 119,
            "sched_setparam": 118, "sched_setattr": 274, "setpriority": 140, "ioprio_set": 30, "migrate_pages": 238,
            "move_pages": 239, "settimeofday": 170, "clock_settime": 112, "adjtimex": 171, "clock_adjtime": 266,
            "sethostname": 161, "setdomainname": 162, "reboot": 142, "kexec_load": 104, "kexec_file_load": 294,
            "init_module": 105, "finit_module": 273, "delete_module": 106, "swapon": 224, "swapoff": 225,
            "acct": 89, "quotactl": 60, "bpf": 280, "vhangup": 58, "setns": 268, "syslog": 116, "mount": 40,
            "umount2": 39, "pivot_root": 41, "clone": 220, "fanotify_init": 262, **_COMMON,
        },
    ),
}  # fmt: skip

NEVER: Final = (
    # other programs and processes, and sockets by another way
    "fork", "vfork", "execve", "execveat", "ptrace", "process_vm_writev", "pidfd_getfd", "pidfd_send_signal",
    "process_madvise", "process_mrelease", "io_uring_setup", "io_uring_enter", "io_uring_register", "tkill",
    # what processes share by a name
    "mq_open", "mq_unlink", "shmget", "shmat", "shmctl", "semget", "semop", "semctl", "semtimedop",
    "msgget", "msgsnd", "msgrcv", "msgctl", "add_key", "request_key", "keyctl",
    # the machine, for those who are root
    "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "reboot",
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "swapon", "swapoff", "acct",
    "quotactl", "bpf", "vhangup", "setns", "syslog", "mount", "umount2", "pivot_root",
    "open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "quotactl_fd",
    "fanotify_init", "iopl", "ioperm",
    # files, where there is no sixth argument to tell the guard's own calls by
    "setxattrat", "removexattrat", "file_setattr",
)  # fmt: skip
METADATA: Final = (
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime", "utimes", "futimesat",
    "utimensat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr",
)  # fmt: skip
"""Only the guard's own functions make these; see `metadata`."""
SIGNALS: Final = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
"""To this process alone, which the first argument names."""
OF_A_PROCESS: Final = (
    "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr", "migrate_pages", "move_pages",
)  # fmt: skip
"""The first argument is a process; 0 is the thread itself."""
OF_A_KIND: Final = {"setpriority": 0, "ioprio_set": 1}
"""The first argument says what the second one names: only a process, by this number, and that this one or 0."""

CLONE_THREAD: Final = 0x10000
"""The flag by which `clone` makes a thread and no process. The flags of `clone3` cannot be read: it is as if absent."""

FCNTL: Final = {8: "F_SETOWN", 15: "F_SETOWN_EX"}
"""Commands that have the kernel send signals to any process."""
IOCTL: Final = {
    0x8901: "FIOSETOWN", 0x8902: "SIOCSPGRP",
    # typing into the terminal, for the shell that reads it next
    0x5412: "TIOCSTI", 0x541C: "TIOCLINUX", 0x541D: "TIOCCONS",
    # flags of files, for which a descriptor to read by is enough
    0x40086602: "FS_IOC_SETFLAGS", 0x40046602: "FS_IOC32_SETFLAGS", 0x40087602: "FS_IOC_SETVERSION",
    0x401C5820: "FS_IOC_FSSETXATTR", 0x40806685: "FS_IOC_ENABLE_VERITY", 0x800C6613: "FS_IOC_SET_ENCRYPTION_POLICY",
    0xC0045877: "FIFREEZE", 0xC0045878: "FITHAW", 0xC0185879: "FITRIM", 0xC0185878: "FITRIM",
    # interfaces of the network, for which a socket of any family is enough
    0x890B: "SIOCADDRT", 0x890C: "SIOCDELRT", 0x8914: "SIOCSIFFLAGS", 0x8916: "SIOCSIFADDR", 0x8918: "SIOCSIFDSTADDR",
    0x891A: "SIOCSIFBRDADDR", 0x891C: "SIOCSIFNETMASK", 0x891E: "SIOCSIFMETRIC", 0x8922: "SIOCSIFMTU",
    0x8923: "SIOCSIFNAME", 0x8924: "SIOCSIFHWADDR", 0x8936: "SIOCDIFADDR", 0x8943: "SIOCSIFTXQLEN",
    0x8946: "SIOCETHTOOL", 0x8953: "SIOCDARP", 0x8955: "SIOCSARP", 0x89A0: "SIOCBRADDBR", 0x89A1: "SIOCBRDELBR",
}  # fmt: skip
"""Commands of `ioctl` that change something outside of the process."""
