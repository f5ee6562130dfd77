"""The interpreter's exit closes what nobody has closed, says so, and never hangs.

"A program that never calls close: child and /dev/shm name outlived a normal exit, silently."
"""

from __future__ import annotations

import gc
import weakref

import pytest
from core_scripts import run_script
from plugins_things import ThingResource, managed

#: What every script begins with.
PRELUDE = """
import atexit, os, signal, sys, threading, time, warnings
from plugins_things import ThingResource, managed

def say(*words):
    print(*words, flush=True)

def saying(*words):
    return lambda: say(*words)

# A line, as a program has it that asks for such warnings.
warnings.showwarning = lambda message, category, *_: say(f"{category.__name__}: {message}")
warnings.simplefilter("always")
"""

WARNING = (
    "ResourceWarning: a ProcessManager was not closed, but by the interpreter's exit; "
    "processes: {}, owned: {}; use `with`, or call close()"
)


def lines_of(source: str, *, timeout: float = 30) -> list[str]:
    """What a script says, in an interpreter that ends well, and complains of nothing."""
    script = run_script(PRELUDE + source, timeout=timeout)

    assert (script.returncode, script.stderr) == (0, "")
    return script.stdout.splitlines()


def test_what_nobody_has_closed_is_closed_at_exit() -> None:
    """The latest manager first, and of each all that its processes own; then it is said."""
    assert lines_of("""
plugin, other = ThingResource("leases"), ThingResource("tokens", 1)
first, second = managed(plugin, other), managed(ThingResource("idle"))
parent = first.create_process("parent")
child = first.create_process("child", parent=parent)
for number in range(3):
    first.create_process(f"more {number}")
plugin.give(parent.pid, behave=saying("lease of the parent"))
plugin.give(child.pid, behave=saying("lease of the child"))
other.give(parent.pid, behave=saying("token"))
second.create_process("idler").on_terminated(saying("idler is terminated"))
say("end")
""") == [
        "end",
        "idler is terminated",
        WARNING.format("1 ('idler')", "nothing"),
        "lease of the child",
        "token",
        "lease of the parent",
        WARNING.format("5 ('parent', 'child', 'more 0', ...)", "tokens (1), leases (2)"),
    ]


def test_what_is_closed_or_holds_nothing_is_not_mentioned() -> None:
    """Nothing is said, and nothing waited for."""
    assert (
        lines_of("""
plugin = ThingResource()
with managed(plugin) as closed:
    plugin.give(closed.create_process("p").pid)
open = managed(ThingResource())
open.create_process("p").terminate()
""")
        == []
    )


def test_nothing_is_registered_before_there_is_a_manager() -> None:
    """Importing costs no exit function, and closed managers do not add up."""
    assert lines_of("""
import gc
import multiprocessing.util
import probate.process.hostexit
before = atexit._ncallbacks()
import probate.process.manager
say(before == atexit._ncallbacks())
for _ in range(3):
    managed(ThingResource()).close()
say(atexit._ncallbacks() - before, gc.callbacks)
say(len(probate.process.hostexit.open_managers._open))
""") == ["True", "1 []", "0"]


def test_what_busy_things_leave_is_named_by_the_warning_alone_once() -> None:
    """A manager that was closed with something left is closed; the exit does not repeat it."""
    assert (
        lines_of("""
from probate import Outcome
plugin = ThingResource()
manager = managed(plugin, deadline=0.1)
plugin.give(manager.create_process("p").pid, behave=lambda: say("tried") or Outcome.BUSY)
manager.close()
say("closed")
""")[-1]
        == "closed"
    )


# -- dropped managers --------------------------------------------------------


def test_a_dropped_manager_lives_as_long_as_a_process_of_it_runs() -> None:
    """What that holds is not lost without a word; with none, it is garbage as all else."""
    plugin = ThingResource()
    manager = managed(plugin)
    process = manager.create_process("p")
    pid, thing = process.pid, plugin.give(process.pid)
    dropped = weakref.ref(manager)
    del manager, process
    gc.collect()

    assert dropped() is not None
    assert plugin.table.resources(pid) == [thing]

    dropped().terminate_process(pid)  # type: ignore[union-attr]  # it is there
    gc.collect()

    assert dropped() is None


@pytest.mark.parametrize("ending", ["closed", "terminated", "never any"])
def test_a_dropped_manager_of_which_no_process_runs_is_collected(ending: str) -> None:
    """Also if it was never closed, and remembers the processes that it had."""
    plugin = ThingResource()
    manager = managed(plugin)
    if ending != "never any":
        process = manager.create_process("p")
        plugin.give(process.pid)
        process.terminate() if ending == "terminated" else manager.close()
    process = None  # type: ignore[assignment]  # it would keep its manager
    dropped = weakref.ref(manager)
    del manager
    gc.collect()

    assert dropped() is None


def test_a_parents_managers_are_not_kept_in_a_forked_child() -> None:
    """They have no processes there, so that they are garbage when nobody refers to them."""
    assert lines_of("""
import gc, weakref
manager = managed(ThingResource())
process = manager.create_process("p")
dropped = weakref.ref(manager)
if os.fork() == 0:
    del manager, process
    gc.collect()
    say(dropped() is None)
    os._exit(0)
os.wait()
manager.close()
""") == ["True"]


def test_a_dropped_manager_is_closed_at_exit() -> None:
    """By then the only one who knows of it is the exit."""
    assert lines_of("""
import gc
def forget():
    plugin = ThingResource()
    plugin.give(managed(plugin).create_process("p").pid, behave=saying("released"))
forget()
gc.collect()
say("collected")
""") == ["collected", "released", WARNING.format("1 ('p')", "things (1)")]


# -- what may go wrong at exit -----------------------------------------------


def test_a_hook_that_hangs_does_not_keep_the_interpreter_from_its_exit() -> None:
    """It is left behind at the deadline, on every version of Python; the others are released."""
    assert lines_of("""
plugin, stuck = ThingResource("things", -1), ThingResource("stuck")
manager = managed(plugin, stuck, deadline=0.5)
process = manager.create_process("p")
stuck.give(process.pid, behave=lambda: time.sleep(1000))
plugin.give(process.pid, behave=saying("released"))
""") == ["released", WARNING.format("1 ('p')", "stuck (1), things (1)")]


@pytest.mark.parametrize("when", ["grace", "release"])
def test_ctrl_c_at_exit_ends_the_grace_and_is_printed_when_all_is_closed(when: str) -> None:
    """As atexit prints it, once; of several managers none is left out, or waited for."""
    script = run_script(
        PRELUDE
        + f"""
import concurrent.futures
signal.signal(signal.SIGALRM, signal.default_int_handler)
for name in ("first", "second"):
    plugin = ThingResource(name)
    process = managed(plugin, grace=1000, deadline=1000).create_process("p")
    if {when!r} == "release":
        plugin.give(process.pid, behave=lambda: signal.raise_signal(signal.SIGINT))
    else:
        plugin.futures.append(concurrent.futures.Future())
    plugin.give(process.pid, behave=saying(name))
if {when!r} == "grace":
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0.3)
"""
    )
    said = [line.split(": a Process")[0] for line in script.stdout.splitlines()]

    assert said == ["second", "ResourceWarning", "first", "ResourceWarning"]
    assert script.stderr.count("KeyboardInterrupt\n") + script.stderr.count("Interrupt: \n") == 1


def test_a_warning_that_is_an_error_keeps_no_other_manager_from_being_closed() -> None:
    """Python prints it, as all that exit functions raise."""
    script = run_script("""
from plugins_things import ThingResource, managed
for name in ("first", "second"):
    plugin = ThingResource(name)
    plugin.give(managed(plugin).create_process("p").pid, behave=lambda name=name: print(name))
""")

    assert script.stdout.splitlines() == ["second", "first"]
    assert "ResourceWarning: a ProcessManager was not closed" in script.stderr


def test_a_termination_that_a_daemon_thread_runs_is_waited_for() -> None:
    """It has begun; the exit gives it its time, and the account is the one that it makes."""
    assert lines_of("""
plugin = ThingResource()
manager = managed(plugin, grace=0)
process = manager.create_process("p")
begun = threading.Event()
def release():
    begun.set()
    time.sleep(0.3)
    say("released")
plugin.give(process.pid, behave=release)
threading.Thread(target=lambda: say(process.terminate()), daemon=True).start()
begun.wait()
""")[:1] == ["released"]


@pytest.mark.parametrize("loop", ["stopped", "closed"])
def test_a_termination_whose_loop_runs_no_more_is_taken_up(loop: str) -> None:
    """Nobody will ever run that loop again: the exit does not wait for it until the deadline."""
    script = run_script(
        PRELUDE
        + """
import asyncio, concurrent.futures
plugin = ThingResource()
plugin.futures.append(concurrent.futures.Future())
manager = managed(plugin, grace=1000, deadline=1000)
process = manager.create_process("p")
plugin.give(process.pid, behave=saying("released"))
async def main():
    asyncio.create_task(manager.terminate_process_async(process.pid))
    await asyncio.sleep(0)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
say(process.state)
manager.end_grace()
"""
        + ("loop.close()" if loop == "closed" else "")
    )

    assert script.stdout.splitlines()[:2] == ["terminating", "released"]
    assert script.returncode == 0


#: A manager in a cycle, which is finalised when the interpreter ends, with all names gone.
HOLDER = """
import atexit, os
from plugins_things import ThingResource, managed
class Holder:
    def __init__(self):
        self.me = self
        self.manager = managed(plugin, grace=0)
        behave = lambda write=os.write: write(1, b"released\\n") and None
        plugin.give(self.manager.create_process("p").pid, behave=behave)
    def __del__(self, write=os.write):
        self.manager.close()
        write(1, b"closed\\n")
plugin = ThingResource()
"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("holder = Holder()", id="of before"),
        pytest.param(
            """
@atexit.register
def late():
    global holder
    holder = Holder()
managed(ThingResource()).close()
""",
            id="of too late",
        ),
    ],
)
def test_a_close_in_a_finaliser_does_not_hang(script: str) -> None:
    """On Python 3.11 it waited for ever, for a thread that never got to run.

    Managers are closed before that. One that an exit function has made after that was done is
    closed by its finaliser, without threads.
    """
    ran = run_script(HOLDER + script)

    assert ran.stdout.splitlines() == ["released", "closed"]
    assert ran.returncode == 0


# -- children ----------------------------------------------------------------

FORKED = """
import multiprocessing
from probate.system import read_proc
plugin = ThingResource()
manager = managed(plugin)
process = manager.create_process("parents")
here = os.getpid()
def release():
    say("released by", "parent" if os.getpid() == here else "child")
plugin.give(process.pid, behave=release)
def own():
    # In the manager that came along, and in one of its own.
    plugin.give(manager.create_process("childs").pid, behave=saying("released childs"))
    other = ThingResource()
    plugin.other = managed(other)
    other.give(plugin.other.create_process("own").pid, behave=saying("released own"))
"""


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("sys.exit()", []),
        ("os._exit(0)", []),
        ("own(); sys.exit()", ["released own", "released childs"]),
        ("manager.close(); sys.exit()", []),
    ],
)
def test_a_forked_child_closes_at_its_exit_what_is_its_own(ending: str, said: list[str]) -> None:
    """What its parent owns stays as it is, however the child ends."""
    lines = lines_of(
        FORKED
        + f"""
if (child := os.fork()) == 0:
    {ending}
say(os.waitpid(child, 0)[1])
"""
    )
    lines = [line for line in lines if not line.startswith("ResourceWarning")]

    assert lines == [*said, "0", "released by parent"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_closes_at_its_exit_what_is_its_own(method: str) -> None:
    """Such children end by os._exit; and what their parent owns stays as it is."""
    lines = lines_of(
        FORKED
        + f"""
def work():
    own()
    say("end of work")
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    child = context.Process(target={"work" if method == "fork" else "print"})
    child.start()
    child.join()
    say(child.exitcode)
"""
    )
    lines = [line for line in lines if not line.startswith("ResourceWarning")]
    said = ["end of work", "released own", "released childs"] if method == "fork" else [""]

    assert lines == [*said, "0", "released by parent"]
