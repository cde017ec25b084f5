"""The rules of the guards that need no process of their own: what passes, what is withheld, on each machine."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kairos.errors import InvalidArgument
from kairos.replay.guard import (
    Policy,
    environment,
    explain_error,
    landlock,
    parse_destination,
    scrub_environment,
    seccomp,
    show_destination,
    syscalls,
)

ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
PID = 4321
PASS = 0x4123_4567_89AB_CDEF


def verdict(
    machine: seccomp.Machine, call: int, *arguments: int, network: bool = False, arch: int | None = None
) -> int:
    """What the kernel would make of a system call: the filter's program, run step by step."""
    words = [argument % 2**64 for argument in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("<iIQ6Q", call, machine.arch if arch is None else arch, 0, *words)
    lines = seccomp.program(machine, network=network, pid=PID, pass_=PASS)
    at, value = 0, 0
    while True:
        code, true, false, constant = lines[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, constant)
        elif code == 0x54:
            value &= constant
        elif code == 0x15:
            at += true if value == constant else false
        elif code == 0x35:
            at += true if value >= constant else false
        elif code == 0x45:
            at += true if value & constant else false
        elif code == 0x06:
            return constant


machines = pytest.mark.parametrize("machine", list(seccomp.MACHINES.values()), ids=list(seccomp.MACHINES))


@machines
def test_no_socket_is_made_of_any_family(machine: seccomp.Machine) -> None:
    for family in range(46):
        assert verdict(machine, machine.numbers["socket"], family, socket.SOCK_STREAM, 0) == REFUSE
    pair = machine.numbers["socketpair"]
    assert verdict(machine, pair, socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0) == ALLOW
    assert verdict(machine, pair, socket.AF_UNIX, socket.SOCK_DGRAM, 0) == REFUSE


@machines
def test_with_a_network_only_tcp_and_udp_sockets_are_made(machine: seccomp.Machine) -> None:
    call = machine.numbers["socket"]
    allowed = {
        (family, kind, protocol)
        for family in range(46)
        for kind in range(1, 11)
        for protocol in (0, 1, 2, 6, 17, 33, 132, 136, 255, 262)
        if verdict(machine, call, family, kind | socket.SOCK_NONBLOCK, protocol, network=True) == ALLOW
    }
    assert allowed == {(family, kind, protocol) for family in (2, 10) for kind in (1, 2) for protocol in (0, 6, 17)}


@machines
@pytest.mark.parametrize("network", [False, True])
def test_what_reaches_other_processes_is_refused(machine: seccomp.Machine, network: bool) -> None:
    for name in set(syscalls.NEVER) & machine.numbers.keys():
        assert verdict(machine, machine.numbers[name], network=network) == REFUSE, name
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
        number = machine.numbers[name]
        assert verdict(machine, number, PID, 15, network=network) == ALLOW
        for other in (PID + 1, 1, 0, -1, -PID):
            assert verdict(machine, number, other, 15, network=network) == REFUSE
    assert verdict(machine, machine.numbers["kill"], 1, 0) == ALLOW
    for name, commands in (("fcntl", syscalls.FCNTL), ("ioctl", syscalls.IOCTL)):
        for command in commands:
            assert verdict(machine, machine.numbers[name], 3, command, network=network) == REFUSE
        assert verdict(machine, machine.numbers[name], 3, 1, network=network) == ALLOW


@machines
def test_what_belongs_to_a_file_is_changed_by_the_guards_own_functions_alone(machine: seccomp.Machine) -> None:
    for name in syscalls.METADATA:
        if name in machine.numbers:
            number = machine.numbers[name]
            for wrong in (0, 1, PASS - 1, PASS & 0xFFFF_FFFF, PASS ^ 1 << 62):
                assert verdict(machine, number, 3, 0, 0, 0, 0, wrong) == REFUSE, name
            assert verdict(machine, number, 3, 0, 0, 0, 0, PASS) == ALLOW, name
    assert machine is seccomp.MACHINES["aarch64"] or set(syscalls.METADATA) <= machine.numbers.keys()


@machines
def test_threads_are_made_and_processes_are_not(machine: seccomp.Machine) -> None:
    clone = machine.numbers["clone"]
    assert verdict(machine, clone, 0x3D0F00) == ALLOW  # as the C library makes a thread
    for flags in (17, 0x4111, 0x1200011):  # fork(), posix_spawn()
        assert verdict(machine, clone, flags) == REFUSE
    assert verdict(machine, machine.numbers["clone3"], 1, 88) == 0x00050000 | errno.ENOSYS  # then `clone` is tried


@machines
def test_limits_and_shares_are_changed_of_this_process_alone(machine: seccomp.Machine) -> None:
    pointer = 0x7F00_0000_0000
    limits = machine.numbers["prlimit64"]
    for pid in (0, PID):
        assert verdict(machine, limits, pid, 7, pointer, pointer) == ALLOW
    for pid in (PID + 1, 1, -1):
        assert verdict(machine, limits, pid, 7, 0, pointer) == ALLOW
        for new in (pointer, 1, 1 << 32):
            assert verdict(machine, limits, pid, 7, new, 0) == REFUSE
    for name in syscalls.OF_A_PROCESS:
        assert [verdict(machine, machine.numbers[name], pid) for pid in (0, PID, 1)] == [ALLOW, ALLOW, REFUSE]
    for name, kind in syscalls.OF_A_KIND.items():
        number = machine.numbers[name]
        assert [verdict(machine, number, kind, pid) for pid in (0, PID, 1)] == [ALLOW, ALLOW, REFUSE]
        assert {verdict(machine, number, other, 0) for other in range(4) if other != kind} == {REFUSE}


@machines
def test_other_calls_pass_and_other_ways_to_call_do_not(machine: seccomp.Machine) -> None:
    named = set(machine.numbers.values()) - {machine.numbers["seccomp"]}
    for number in set(range(480)) - named:
        assert verdict(machine, number, 2, 1) == ALLOW
    assert verdict(machine, 0, arch=0x40000003) == REFUSE  # the 32-bit calls of a 64-bit kernel
    if machine is seccomp.MACHINES["x86_64"]:
        assert verdict(machine, 0x40000000 + 41, 2, 1) == REFUSE


def test_each_version_of_landlock_is_asked_for_what_it_knows(tmp_path: Path) -> None:
    nothing = Policy(tmp_path)
    sizes = {version: len(landlock.ruleset(version, nothing)) for version in range(1, 9)}
    assert sizes == {1: 8, 2: 8, 3: 8, 4: 16, 5: 16, 6: 24, 7: 24, 8: 24}
    assert [landlock.file_rights(version) for version in (1, 2, 3, 4, 5)] == [0x1FF2, 0x3FF2, 0x7FF2, 0x7FF2, 0xFFF2]
    assert struct.unpack("=3Q", landlock.ruleset(6, nothing)) == (0xFFF2, 3, 3)
    assert struct.unpack("=3Q", landlock.ruleset(6, nothing, signals=False)) == (0xFFF2, 3, 1)
    every_port = Policy(tmp_path, allow_network=(("db", None),))
    assert struct.unpack("=2Q", landlock.ruleset(4, every_port)) == (0x7FF2, 1)


def test_what_a_version_of_landlock_lacks_is_said(tmp_path: Path) -> None:
    closed, open_ = Policy(tmp_path), Policy(tmp_path, allow_network=(("db", 5432),))
    assert [landlock.gap(version, closed) for version in (2, 3, 4)] == ["which does not see truncate()", None, None]
    assert [landlock.gap(version, open_) for version in (3, 4)] == ["which does not see TCP", None]


DESTINATIONS = [
    ("db.example.com:5432", ("db.example.com", 5432)),
    ("DB.example.com", ("db.example.com", None)),
    ("127.0.0.1:80", ("127.0.0.1", 80)),
    ("[::1]:80", ("::1", 80)),
    ("[::1]", ("::1", None)),
    ("::1", ("::1", None)),
]


@pytest.mark.parametrize(("text", "destination"), DESTINATIONS)
def test_a_destination_is_a_host_and_perhaps_a_port(text: str, destination: tuple[str, int | None]) -> None:
    assert parse_destination(text) == destination
    assert parse_destination(show_destination(destination)) == destination


WRONG = [
    "",
    ":80",
    "*",
    "*.example.com:443",
    "db:",
    "db:0",
    "db:65536",
    "db:http",
    "https://db",
    "u@db",
    "[::1",
    "[::1]x",
]


@pytest.mark.parametrize("text", [*WRONG, "db:٣", "[::1", "[::1]x"])
def test_what_is_no_destination_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"hint: Give --allow-network HOST or HOST:PORT"):
        parse_destination(text)


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_only_named_variables_pass(environ: dict[str, str]) -> None:
    kept = scrub_environment({**environ, "PATH": "/bin", "LC_ALL": "C"}, scratch=Path("/scratch"))
    assert kept.keys() - environ.keys() <= {"PATH", "LC_ALL", *OURS}
    assert (
        not (set(kept) & set(environ)) - set(OURS) - environment._PASSED_ON - {n for n in kept if n.startswith("LC_")}
    )


OURS = {"HOME", "TMPDIR", "PYTHONDONTWRITEBYTECODE", "PYTHON_HISTORY", "KAIROS_REPLAY"}
SECRETS = {
    "KAIROS_DATABASE_URL": "postgres://x", "DATABASE_URL": "postgres://u:p@h/d", "PGPASSWORD": "x", "AWS_PROFILE": "x",
    "STRIPE_API_KEY": "x", "GITHUB_TOKEN": "x", "https_proxy": "x", "BROKER": "amqp://u:p@h",
}  # fmt: skip


def test_no_credentials_pass_unless_they_are_asked_for() -> None:
    environ = {**SECRETS, "HOME": "/home/me", "TMPDIR": "/tmp", "MODE": "test", "PYTHONPATH": "."}
    kept = scrub_environment(environ, ["GITHUB_TOKEN", "MODE"], scratch=Path("/scratch"))
    assert kept == {
        "HOME": "/scratch", "TMPDIR": "/scratch", "PYTHONDONTWRITEBYTECODE": "1", "PYTHON_HISTORY": "/dev/null",
        "GITHUB_TOKEN": "x", "MODE": "test", "PYTHONPATH": ".", "KAIROS_REPLAY": "1",
    }  # fmt: skip
    assert environment.left_over(environ, ["GITHUB_TOKEN"]) == sorted(SECRETS.keys() - {"GITHUB_TOKEN"})
    assert environment.left_over(kept, ["GITHUB_TOKEN"]) == []


def test_an_error_means_nothing_where_no_guard_is_up() -> None:
    assert explain_error(PermissionError(errno.EACCES, "Permission denied")) is None
