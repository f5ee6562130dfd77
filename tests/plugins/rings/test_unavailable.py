"""Where io_uring is missing: one clear error from create_ring, and the zero-copy half works."""

from __future__ import annotations

import errno
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from probate import ProbateError
from probate_rings import IoUringUnavailableError, RingResource, binding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What every case ends with: the error is said, and a message goes through a zero-copy ring.
SAY = """
from probate_rings import IoUringUnavailableError, RingResource, binding

resource = RingResource()
try:
    resource.iouring.create_ring(7, 8)
except IoUringUnavailableError as error:
    print(error)
assert not resource.has_resources(7)
ring = resource.zerocopy.create_ring(7)
with ring.sending() as block:
    ring.submit(5)
with ring.receiving() as message:
    assert len(message) == 5
assert resource.cleanup(7).resources_freed == 1
"""

#: Has the kernel refuse io_uring_setup (425), as a container's seccomp profile does.
FILTER = """
import ctypes, struct, sys

number = int(sys.argv[1])
code = b"".join((
    struct.pack("=HBBI", 0x20, 0, 0, 0),  # load the system call's number
    struct.pack("=HBBI", 0x15, 0, 1, 425),  # is it io_uring_setup?
    struct.pack("=HBBI", 0x06, 0, 0, 0x00050000 | number),  # refuse with that errno
    struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000),  # allow
))
buffer = ctypes.create_string_buffer(code)
program = struct.pack("@HP", 4, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, program) == 0, ctypes.get_errno()  # PR_SET_SECCOMP, filter
"""


def run(script: str, *arguments: str) -> str:
    """Run a script in an interpreter of its own; return what it says."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 0, done.stderr

    return done.stdout


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A liburing that comes before the installed one, if any; a test writes what is in it."""
    package = tmp_path / "liburing"
    package.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name == "liburing"}
    yield package / "__init__.py"
    sys.modules.pop("liburing", None)
    sys.modules.update(kept)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install; nothing imports the package before create_ring."""
    said = run("import sys; sys.modules['liburing'] = None\n" + SAY)

    assert "io_uring is not available: the package liburing is not installed" in said
    assert "pip install 'probate-rings[iouring]'" in said
    assert "zero-copy rings work without it" in said


def test_the_package_is_imported_late() -> None:
    """Importing the plugin, and using its zero-copy half, costs nothing of io_uring."""
    said = run(
        "import sys\nfrom probate_rings import RingResource\n"
        "RingResource().zerocopy.create_ring(1).close()\n"
        "print('liburing' in sys.modules, 'subprocess' in sys.modules)"
    )

    assert said.split()[0] == "False"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSYS, "does not have it (ENOSYS)"),
        (errno.EPERM, "kernel.io_uring_disabled"),
    ],
)
def test_without_the_kernel(number: int, words: str) -> None:
    """A kernel that refuses io_uring_setup: what to look at."""
    said = run(
        FILTER
        + "from probate_rings import syscalls\n"
        + SAY.replace("resource =", "binding.load = lambda: syscalls\nresource ="),
        str(number),
    )

    assert "io_uring is not available" in said
    assert words in said


def test_the_installed_package_and_a_kernel_that_refuses() -> None:
    """The trial of the real package in a child says nothing of the kernel, which speaks itself."""
    try:
        binding.load()
    except IoUringUnavailableError as error:
        pytest.skip(str(error))
    said = run(FILTER + SAY, str(errno.ENOSYS))

    assert "does not have it (ENOSYS)" in said


def test_a_build_for_another_cpu_is_stood_in_for(fake_package: Path) -> None:
    """A package that dies of SIGILL does so in a child, once; system calls do its work then."""
    fake_package.write_text(
        "import os, signal\n"
        "def Ring():\n"
        f"    open({str(fake_package.parent / 'tries')!r}, 'a').write('x')\n"
        "    os.kill(os.getpid(), signal.SIGILL)\n"
    )
    resource = RingResource()
    for _ in range(2):
        ring = resource.iouring.create_ring(7, 8)
        ring.nop()
        ring.submit()

        assert [each.result for each in ring.reap(1, 5.0)] == [0]

    assert (fake_package.parent / "tries").read_text() == "x"
    assert resource.cleanup(7).resources_freed == 2


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ImportError('no libc')", "does not work: ImportError: no libc"),
        ("Ring = Cqe = object", "does not work: AttributeError"),
        ("raise SystemExit", "does not work: no reason given"),
    ],
)
def test_a_package_that_does_not_work(fake_package: Path, source: str, words: str) -> None:
    """Another package of that name, or half of one, is found out before it is used."""
    fake_package.write_text(source)

    with pytest.raises(IoUringUnavailableError, match=words):
        RingResource().iouring.create_ring(7, 8)


def test_without_an_interpreter_to_try_it(
    fake_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embedded, there may be none: refused, since a crash would be the alternative."""
    fake_package.write_text("")
    monkeypatch.setattr(sys, "executable", "")

    with pytest.raises(IoUringUnavailableError, match=r"sys\.executable names no interpreter"):
        RingResource().iouring.create_ring(7, 8)


def test_other_refusals_are_the_kernels_own(package: object) -> None:
    """ENOMEM or EMFILE are about this one ring: OSError as it comes."""
    assert binding.unavailable(OSError(errno.ENOMEM, "no memory")) is None
    assert issubclass(IoUringUnavailableError, ProbateError)
    assert issubclass(IoUringUnavailableError, RuntimeError)
