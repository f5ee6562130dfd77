"""with_signals(): a host that is told to end has its processes terminated, and then ends so.

docker stop, systemd: SIGTERM's default ends the host, and everything named stays.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hosts import Host
from plugins_things import ThingResource, orchestrate

from probate import ProcessManager

if TYPE_CHECKING:
    from collections.abc import Iterator

TERM, HUP, INT = signal.SIGTERM, signal.SIGHUP, signal.SIGINT

ONE = """
plugin = ThingResource()
manager = build(plugin)
process = manager.create_process("worker")
child = manager.create_process("child", parent=process)
plugin.give(process.pid, behave=saying("released"))
plugin.give(child.pid, behave=saying("released child"))
"""

#: Ways for a main thread to spend its time.
MAINS = {
    "sleeps": "say('ready'); time.sleep(1000)",
    "computes": "say('ready')\nwhile True: pass",
    "waits for a lock": "say('ready'); threading.Lock().acquire(); threading.Event().wait()",
    "joins a thread": (
        "thread = threading.Thread(target=time.sleep, args=(1000,), daemon=True)\n"
        "thread.start(); say('ready'); thread.join()"
    ),
    "reads": "say('ready'); os.read(os.pipe()[0], 1)",
    "has ended": (
        "thread = threading.Thread(target=time.sleep, args=(1000,))\nthread.start(); say('ready')"
    ),
    "is in C for ever": (
        "import ctypes; mutex = ctypes.create_string_buffer(64); lock = ctypes.CDLL(None)\n"
        "say('ready')\nwhile True: lock.pthread_mutex_lock(mutex)"
    ),
    "blocks them": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [1, 2, 15]); say('ready'); time.sleep(1000)"
    ),
    "runs a loop": (
        "async def main():\n    say('ready'); await asyncio.Event().wait()\nasyncio.run(main())"
    ),
}


@pytest.mark.parametrize("main", MAINS)
@pytest.mark.parametrize("number", [TERM, HUP])
def test_all_is_terminated_and_the_host_dies_of_the_signal(number: int, main: str) -> None:
    """By the kernel's word, which whoever waits for it reads (WIFSIGNALED, wait(2))."""
    with Host(ONE + MAINS[main]) as host:
        host.wait_for("ready")
        host.send(number)

        assert host.end() == (-number, ["ready", "released child", "released"], "")


def test_ctrl_c_is_raised_when_all_is_terminated() -> None:
    """By the function that was there before, where the main thread is; the block is left by it."""
    with Host(
        ONE
        + """
try:
    with manager:
        say("ready")
        time.sleep(1000)
except KeyboardInterrupt:
    say(process.state, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    raise
"""
    ) as host:
        host.wait_for("ready")
        host.send(INT)
        code, lines, errors = host.end()

        assert code == -INT
        assert lines == ["ready", "released child", "released", "terminated True"]
        assert errors.endswith("KeyboardInterrupt\n")


#: A host inside of asyncio.run, whose task takes a while to clean up after itself.
ASYNC = """
plugin = ThingResource()
async def work():
    try:
        await asyncio.sleep(1000)
    finally:
        await asyncio.sleep(0.1)
        say("cleaned up")

def stop():
    # As the kind `tasks` does it: from whichever thread, on its loop.
    loop.call_soon_threadsafe(task.cancel)
    return [done]

def make(manager):
    global loop, task, done
    from concurrent.futures import Future
    loop, done = asyncio.get_running_loop(), Future()
    task = loop.create_task(work())
    task.add_done_callback(lambda _: done.set_result(None))
    process = manager.create_process("worker")
    plugin.faults["quiesce"] = stop
    plugin.give(process.pid, behave=saying("released"))

async def main():
    {main}

{before}
try:
    {run}
except BaseException as error:
    say(type(error).__name__)
    raise
"""

INSIDE = (
    "async with build(plugin, grace=20) as m: make(m); say('ready'); await asyncio.Event().wait()"
)
OUTSIDE = "make(manager); say('ready'); await asyncio.Event().wait()"


@pytest.mark.parametrize("run", ["asyncio.run(main())", "__import__('uvloop').run(main())"])
@pytest.mark.parametrize("number", [TERM, INT])
@pytest.mark.parametrize("where", ["inside", "outside"])
def test_the_tasks_of_an_async_host_are_cancelled_first(run: str, number: int, where: str) -> None:
    """The loop goes on meanwhile, although it was blocked in epoll(7) when the signal came."""
    source = ASYNC.format(
        main=INSIDE if where == "inside" else OUTSIDE,
        before="" if where == "inside" else "manager = build(plugin, grace=20)",
        run=run,
    )
    with Host(source) as host:
        host.wait_for("ready")
        host.send(number)
        code, lines, _ = host.end()

        assert code == -number
        assert lines[:3] == ["ready", "cleaned up", "released"]
        assert lines[3:] == (["KeyboardInterrupt"] if number == INT else [])


# -- more than one signal ----------------------------------------------------

ENDLESS = """
import concurrent.futures
plugin = ThingResource()
manager = build(plugin, grace=1000, deadline=1000)
def quiesce():
    say("asked")
    return [concurrent.futures.Future()]
plugin.faults["quiesce"] = quiesce
process = manager.create_process("worker")
plugin.give(process.pid, behave=saying("released"))
"""


@pytest.mark.parametrize(
    "main",
    [
        pytest.param("say('ready'); time.sleep(1000)", id="idle"),
        pytest.param("say('ready'); process.terminate(); time.sleep(1000)", id="terminates"),
        pytest.param("say('ready'); manager.close(); time.sleep(1000)", id="closes"),
        pytest.param(
            "async def main():\n"
            "    async with manager:\n        say('ready')\n    await asyncio.sleep(1000)\n"
            "asyncio.run(main())",
            id="closes on a loop",
        ),
        pytest.param("say('ready')", id="ends"),
    ],
)
def test_a_second_signal_ends_the_grace(main: str) -> None:
    """Of whoever terminates just now, on whichever thread or loop; many more do no harm."""
    with Host(ENDLESS + main) as host:
        host.wait_for("ready")
        host.send(TERM)
        host.wait_for("asked")
        host.wait_for("released", sending=TERM)
        for _ in range(10):
            host.send(TERM)

        assert host.end() == (-TERM, ["ready", "asked", "released"], "")


def test_a_ctrl_c_after_a_sigterm_ends_the_grace_and_the_host_dies_of_the_first() -> None:
    """What asked first is what it ends by; the second raises nothing."""
    with Host(ENDLESS + "say('ready'); time.sleep(1000)") as host:
        host.wait_for("ready")
        host.send(TERM)
        host.wait_for("asked")
        host.send(INT)

        assert host.end() == (-TERM, ["ready", "asked", "released"], "")


def test_one_signal_alone_leaves_users_their_grace() -> None:
    """Whoever stops within it is not forced."""
    with Host(
        ENDLESS
        + """
def quiesce():
    future = concurrent.futures.Future()
    threading.Timer(0.3, lambda: say("stopped") or future.set_result(None)).start()
    return [future]
plugin.faults["quiesce"] = quiesce
say("ready")
time.sleep(1000)
"""
    ) as host:
        host.wait_for("ready")
        host.send(TERM)

        assert host.end() == (-TERM, ["ready", "stopped", "released"], "")


# -- what was there before ---------------------------------------------------


def test_a_function_of_before_is_called_when_all_is_terminated() -> None:
    """Once, with the signal's number, in the main thread; the host lives on, and has it back."""
    with Host(
        """
def stop(number, frame):
    say("stop", number, process.state, threading.current_thread() is threading.main_thread())
for number in (1, 2, 15):
    signal.signal(number, stop)
"""
        + ONE
        + """
say("ready")
while process.state == "running" or signal.getsignal(15) is not stop:
    time.sleep(0.01)
say(all(signal.getsignal(number) is stop for number in (1, 2, 15)))
"""
    ) as host:
        host.wait_for("ready")
        host.send(HUP)

        assert host.end() == (
            0,
            ["ready", "released child", "released", "stop 1 terminated True", "True"],
            "",
        )


def test_what_is_ignored_stays_ignored() -> None:
    """nohup(1): HUP that was ignored when the program began does not end it, nor anything in it."""
    nohup = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    with Host(ONE + "say('ready'); sys.stdin.read(); signal.pause()", command=nohup) as host:
        host.wait_for("ready")
        host.send(HUP)
        host.send(TERM)
        code, lines, _ = host.end()

    assert (code, lines) == (-TERM, ["ready", "released child", "released"])


@pytest.fixture
def dispositions() -> Iterator[dict[int, Any]]:
    """SIGUSR1 and SIGUSR2 with their default actions, and so afterwards."""
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before: dict[int, Any] = {each: signal.signal(each, signal.SIG_DFL) for each in numbers}
    yield before
    for each, handler in before.items():
        signal.signal(each, handler)


def build(*signals: int) -> ProcessManager:
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrate(ThingResource()))
    return builder.with_grace(0).with_signals(*signals).build()


def test_closing_gives_the_signals_back(dispositions: dict[int, Any]) -> None:
    """Those that are still ours: what others have installed over it stays."""

    def theirs(*_: object) -> None:
        """Do nothing."""

    with build(signal.SIGUSR1, signal.SIGUSR2):
        assert callable(signal.getsignal(signal.SIGUSR1))
        signal.signal(signal.SIGUSR2, theirs)

    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR2) is theirs


def test_by_default_it_is_what_asks_a_host_to_end(dispositions: dict[int, Any]) -> None:
    """TERM, HUP and INT; without with_signals(), none."""
    before = {number: signal.getsignal(number) for number in (TERM, HUP, INT)}
    with build() as manager:
        assert {signal.getsignal(number) for number in before} == {manager._signals}
    with ProcessManager.builder().with_resource_orchestrator(orchestrate()).build():
        assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (signal.SIGKILL, ValueError, "SIGKILL cannot be handled"),
        (signal.SIGSTOP, ValueError, "SIGSTOP cannot be handled"),
        (0, ValueError, "0 is no signal number"),
        (1000, ValueError, "1000 is no signal number"),
        (signal.SIGCHLD, ValueError, "SIGCHLD ends no program"),
        (signal.SIGTSTP, ValueError, "SIGTSTP ends no program"),
        (True, TypeError, "must be an int, got True"),
        ("TERM", TypeError, "must be an int, got 'TERM'"),
    ],
)
def test_what_is_no_signal_to_handle_is_refused(
    number: Any, error: type[Exception], text: str
) -> None:
    """Where it is given, with the value."""
    with pytest.raises(error, match=text):
        ProcessManager.builder().with_signals(number)


def test_on_another_thread_it_is_refused_before_anything_is_acquired() -> None:
    """Python sets handlers in the main thread alone; the orchestrator is free for another one."""
    orchestrator = orchestrate(ThingResource())
    builder = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_signals()
    errors: list[BaseException] = []

    def try_it() -> None:
        try:
            builder.build()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=try_it)
    thread.start()
    thread.join()

    assert "with_signals() needs the main thread" in str(errors[0])
    ProcessManager.builder().with_resource_orchestrator(orchestrator).build().close()


def test_a_handler_of_c_code_is_refused() -> None:
    """sdk-python#226: restoring a C-level handler raised TypeError: Python knows it as None."""
    source = """
try:
    build(ThingResource(), signals=[signal.SIGTERM, signal.SIGABRT])
except RuntimeError as error:
    say(error)
say(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""
    with Host(source, options=["-X", "faulthandler"]) as host:
        code, lines, _ = host.end()

        assert code == 0
        assert lines[0].startswith(f"signal {int(signal.SIGABRT)} is handled by C code")
        assert lines[1] == "True"


# -- beside others -----------------------------------------------------------


def test_several_managers_are_all_closed() -> None:
    """With signals or without: no exit function is called when a default action ends the host."""
    with Host(
        """
plugins = [ThingResource(name) for name in ("first", "second", "third")]
for plugin in plugins:
    if plugin.kind == "second":
        builder = ProcessManager.builder().with_resource_orchestrator(orchestrate(plugin))
        manager = builder.with_grace(0).build()
    else:
        manager = build(plugin)
    plugin.give(manager.create_process("p").pid, behave=saying(plugin.kind))
say("ready")
time.sleep(1000)
"""
    ) as host:
        host.wait_for("ready")
        host.send(TERM)
        code, lines, errors = host.end()

        assert (code, sorted(lines), errors) == (-TERM, ["first", "ready", "second", "third"], "")


def test_the_kind_signals_keeps_its_handlers_beside_it() -> None:
    """A process's own handler is called first, and its end does not take ours out, nor ours its."""
    with Host(
        """
from probate_signals import SignalResource
orchestrator = orchestrate(plugin := ThingResource()).register(SignalResource(), "signals")
builder = ProcessManager.builder().with_resource_orchestrator(orchestrator).with_grace(0)
manager = builder.with_signals().build()
signals = orchestrator["signals"].manager
early, late = manager.create_process("early"), manager.create_process("late")
signals.register(early.pid, signal.SIGTERM, lambda *_: say("early"))
early.terminate()
say(signal.getsignal(signal.SIGTERM) is manager._signals)
signals.register(late.pid, signal.SIGTERM, lambda *_: say("late"))
plugin.give(late.pid, behave=saying("released"))
say("ready")
time.sleep(1000)
"""
    ) as host:
        host.wait_for("ready")
        host.send(TERM)
        code, lines, errors = host.end()

        assert (code, errors) == (-TERM, "")
        assert lines == ["True", "ready", "late", "released"]


def test_a_manager_that_another_thread_has_closed_passes_signals_on() -> None:
    """That thread cannot give them back; the host ends by them all the same."""
    with Host(
        ONE
        + """
thread = threading.Thread(target=manager.close)
thread.start()
thread.join()
say("ready")
time.sleep(1000)
"""
    ) as host:
        host.wait_for("ready")
        host.send(HUP)

        assert host.end() == (-HUP, ["released child", "released", "ready"], "")


FORKED = """
if os.fork() == 0:
    say("child", os.getpid())
    while True:  # a signal that comes just before a sleep does not end it
        time.sleep(0.01)
say("ended by", os.wait()[1])
say(process.state)
time.sleep(1000)
"""


@pytest.mark.parametrize("number", [TERM, HUP, INT])
def test_a_forked_child_ends_by_the_signal_and_releases_nothing(number: int) -> None:
    """As it would have without us, and at once; its parent has all it had."""
    with Host(ONE + FORKED) as host:
        os.kill(int(host.wait_for("child")), number)
        host.wait_for("running")
        host.send(TERM)
        code, lines, _ = host.end()

        assert code == -TERM
        assert lines[1:] == [f"ended by {int(number)}", "running", "released child", "released"]


def test_a_child_of_multiprocessing_can_be_terminated() -> None:
    """Process.terminate() is a SIGTERM, which a handler of its parent's must not take."""
    with Host(
        ONE
        + """
import multiprocessing
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
child.start()
child.terminate()
child.join()
say(child.exitcode, process.state)
"""
    ) as host:
        code, lines, _ = host.end()

        assert (code, lines[0]) == (0, "-15 running")


# -- at awkward moments ------------------------------------------------------


def test_a_host_that_ends_by_itself_meanwhile_dies_of_the_signal() -> None:
    """Its main thread finds the manager closed, and is done; the exit waits, and ends so."""
    with Host(
        ONE
        + """
plugin.faults["quiesce"] = lambda: say("asked") or time.sleep(0.5) or ()
say("ready")
while process.state == "running":
    time.sleep(0.001)
say("end of main")
"""
    ) as host:
        host.wait_for("ready")
        host.send(TERM)
        code, lines, errors = host.end()

        assert (code, errors) == (-TERM, "")
        assert lines[-2:] == ["released child", "released"]
        assert "end of main" in lines


def test_a_signal_during_the_exit_lets_it_finish() -> None:
    """The exit has begun to close; the host dies of the signal when it has."""
    with Host(
        ONE
        + """
plugin.faults["quiesce"] = lambda: say("asked") or time.sleep(0.3) or ()
"""
    ) as host:
        host.wait_for("asked")
        host.send(TERM)
        code, lines, _ = host.end()

        assert code == -TERM
        assert lines[-2:] == ["released child", "released"]


def test_where_no_thread_can_be_started_the_handler_itself_closes() -> None:
    """There is nowhere else to do it."""
    with Host(
        ONE
        + """
threading.stack_size(1 << 46)  # more than there is: no thread can be started
say("ready")
time.sleep(1000)
"""
    ) as host:
        host.wait_for("ready")
        host.send(TERM)

        assert host.end() == (-TERM, ["ready", "released child", "released"], "")


HALF_DONE = """
def make():
    say("begun")
    {wait}
    say("made")
    return Thing("late", saying("released late"))

def acquire():
    try:
        plugin.table.acquire(process.pid, make, Thing.release)
    except ProcessTerminatedError:
        say("refused")

from plugins_things import Thing
from probate.errors import ProcessTerminatedError
threading.Thread(target=acquire, daemon=True).start()
time.sleep(1000)
"""


def test_what_is_half_done_on_another_thread_is_taken_back_first() -> None:
    """It was admitted before all was closed, and is nobody's until it is made."""
    wait = "while process.state != 'terminated': time.sleep(0.001)\n    time.sleep(0.2)"
    with Host(ONE + HALF_DONE.format(wait=wait)) as host:
        host.wait_for("begun")
        host.send(TERM)
        code, lines, errors = host.end()

        assert (code, errors) == (-TERM, "")
        assert lines[:5] == ["begun", "released child", "released", "made", "released late"]


def test_what_never_gets_done_does_not_keep_the_host_from_ending() -> None:
    """Such as the wait for a lock; nor does the time it takes depend on grace or deadline."""
    with Host(ONE + HALF_DONE.format(wait="time.sleep(1000)")) as host:
        host.wait_for("begun")
        host.send(TERM)

        assert host.end() == (-TERM, ["begun", "released child", "released"], "")


def test_what_fails_while_closing_does_not_keep_the_host_from_ending() -> None:
    """It is logged: nobody is there whom it could be raised to."""
    with Host(
        ONE
        + """
import logging
logging.basicConfig()
def fail(): raise SystemError("no luck")
manager.orchestrator._registry.owners = lambda above=0: fail()
say("ready")
time.sleep(1000)
"""
    ) as host:
        host.wait_for("ready")
        host.send(TERM)
        code, lines, errors = host.end()

        assert code == -TERM
        assert lines == ["ready", "released child", "released"]
        assert "closing a manager at signal 15 failed" in errors
        assert "no luck" in errors


@pytest.mark.needs_root(reason="a pid namespace of its own is root's to make")
def test_the_first_process_of_a_container_ends_too() -> None:
    """What docker stop sends has no default action there (pid_namespaces(7)): exit code 143."""
    command = ["unshare", "--pid", "--fork", "--kill-child"]
    with Host(ONE + "say('pid', os.getpid()); time.sleep(1000)", command=command) as host:
        assert host.wait_for("pid") == "1"
        children = f"/proc/{host.pid}/task/{host.pid}/children"
        with open(children) as file:
            os.kill(int(file.read()), TERM)

        assert host.end() == (128 + TERM, ["pid 1", "released child", "released"], "")
