"""OS processes, threads, and what runs calls on them; and how they talk to each other."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import multiprocessing.managers
import multiprocessing.pool
import os
import queue
import sched
import subprocess
import threading
import time
import uuid
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Final

import posix_ipc
import psutil
import sysv_ipc

from adoption.case import Trial, case
from adoption.witness import Witness, end_of_pipe, future, holds, number, path, process, runs, works

if TYPE_CHECKING:
    from adoption.place import Place

PROCESSES: Final = "OS processes"
THREADS: Final = "Threads, executors and pools"
IPC: Final = "Between processes and threads"

_FORK: Final = multiprocessing.get_context("fork")


def _popen(place: Place, cls: Any = subprocess.Popen, **options: Any) -> Any:
    made = cls(["sleep", "1000"], **options)
    place.finally_(made.wait)
    place.finally_(made.kill)
    return made


@case(PROCESSES, "`subprocess.Popen`")
def popen(place: Place) -> Trial:
    made = _popen(place)
    return Trial(made, (process(made.pid, "killed, with all that descends from it"),))


@case(PROCESSES, "`subprocess.Popen` with pipes")
def popen_with_pipes(place: Place) -> Trial:
    made = _popen(place, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    place.finally_(made.stdout.close)
    place.finally_(made.stdin.close)
    return Trial(made, (process(made.pid, "killed; the pipes are left to their user"),))


@case(PROCESSES, "`stdin` of a `Popen`")
def popen_stdin(place: Place) -> Trial:
    made = _popen(place, stdin=subprocess.PIPE)
    place.finally_(made.stdin.close)
    return Trial(made.stdin, (number(made.stdin.fileno()),))


@case(PROCESSES, "`subprocess.Popen` that has ended")
def ended_popen(_: Place) -> Trial:
    made = subprocess.Popen(["true"])
    made.wait(10)
    return Trial(made)


@case(PROCESSES, "`psutil.Process` of a child")
def psutil_process(place: Place) -> Trial:
    made = _popen(place)
    return Trial(psutil.Process(made.pid), (process(made.pid),))


@case(PROCESSES, "`psutil.Popen`")
def psutil_popen(place: Place) -> Trial:
    made = _popen(place, psutil.Popen)
    return Trial(made, (process(made.pid),))


@case(PROCESSES, "`psutil.Process` of this host, or an ancestor")
def host(_: Place) -> Trial:
    return Trial(
        psutil.Process(), (process(os.getpid()),), release=lambda _: None, say="nothing: it is us"
    )


def _multiprocessing(place: Place, context: Any) -> Trial:
    made = context.Process(target=time.sleep, args=(1000,))
    made.start()
    place.finally_(made.join, 10)
    place.finally_(made.kill)
    return Trial(made, (process(made.pid),))


case(PROCESSES, "`multiprocessing.Process`, by fork")(lambda place: _multiprocessing(place, _FORK))
case(PROCESSES, "`multiprocessing.Process`, by spawn")(
    lambda place: _multiprocessing(place, multiprocessing.get_context("spawn"))
)


@case(PROCESSES, "`multiprocessing.Process` that was not started")
def unstarted(_: Place) -> Trial:
    return Trial(_FORK.Process(target=time.sleep), say="nothing: start it first")


@case(PROCESSES, "number of an OS process")
def bare_pid(place: Place) -> Trial:
    made = _popen(place)

    def end(_: int) -> None:
        made.kill()
        made.wait(10)

    return Trial(made.pid, (process(made.pid),), release=end, say="adopt a `psutil.Process`")


# -- threads -----------------------------------------------------------------------


@case(THREADS, "`threading.Thread`")
def thread(place: Place) -> Trial:
    stop = threading.Event()
    made = threading.Thread(target=stop.wait)
    made.start()
    place.callback(stop.set)

    def end(_: object) -> None:
        stop.set()
        made.join(10)

    return Trial(
        made,
        (runs(made, "over"),),
        release=end,
        say="end, a function that has it return; nobody can stop a thread from outside",
    )


@case(THREADS, "`threading.Timer`")
def timer(place: Place) -> Trial:
    made = threading.Timer(1000, print)
    made.start()
    place.callback(made.cancel)
    return Trial(made, (runs(made, "cancelled"),))


@case(THREADS, "`ThreadPoolExecutor`")
def thread_pool(place: Place) -> Trial:
    made = concurrent.futures.ThreadPoolExecutor(2)
    place.finally_(made.shutdown)
    made.submit(str).result(10)
    workers = list(made._threads)
    gone = "shut down; its threads have ended"
    return Trial(made, (holds(lambda: any(each.is_alive() for each in workers), gone),))


@case(THREADS, "`ProcessPoolExecutor`")
def process_pool(place: Place) -> Trial:
    made = concurrent.futures.ProcessPoolExecutor(1, mp_context=_FORK)
    place.finally_(made.shutdown)
    pid = made.submit(os.getpid).result(10)
    return Trial(made, (process(pid, "shut down; its processes gone"),))


@case(THREADS, "`concurrent.futures.Future` of work that waits")
def waiting_future(place: Place) -> Trial:
    stop = threading.Event()
    executor = place.enter_context(concurrent.futures.ThreadPoolExecutor(1))
    place.callback(stop.set)
    executor.submit(stop.wait)
    made = executor.submit(print)
    return Trial(made, (future(made),))


@case(THREADS, "`concurrent.futures.Future` of nobody")
def bare_future(_: Place) -> Trial:
    made: concurrent.futures.Future[None] = concurrent.futures.Future()
    return Trial(made, (future(made),))


@case(THREADS, "`multiprocessing.Pool`")
def pool(place: Place) -> Trial:
    made = _FORK.Pool(1)
    place.finally_(made.terminate)
    pid = made.apply(os.getpid)
    return Trial(made, (process(pid, "closed; its processes gone"),))


@case(THREADS, "`multiprocessing.pool.ThreadPool`")
def pool_of_threads(place: Place) -> Trial:
    made = multiprocessing.pool.ThreadPool(1)
    place.finally_(made.terminate)
    worker = made.apply(threading.current_thread)
    return Trial(made, (runs(worker, "closed; its threads have ended"),))


@case(THREADS, "`multiprocessing.Manager`")
def manager(place: Place) -> Trial:
    made = multiprocessing.managers.SyncManager(ctx=_FORK)
    made.start()
    place.finally_(made.shutdown)
    return Trial(made, (process(made._process.pid, "shut down; its process gone"),))  # type: ignore[attr-defined]


@case(THREADS, "manager of `multiprocessing` that was not started")
def unstarted_manager(_: Place) -> Trial:
    made = multiprocessing.managers.BaseManager(("127.0.0.1", 1))
    return Trial(made, say="nothing: start it first")


@case(THREADS, "proxy of a manager's object")
def proxy(place: Place) -> Trial:
    made = multiprocessing.managers.SyncManager(ctx=_FORK)
    made.start()
    place.callback(made.shutdown)
    return Trial(made.list([1]))


@case(THREADS, "`sched.scheduler`")
def scheduler(_: Place) -> Trial:
    return Trial(sched.scheduler())


# -- between -----------------------------------------------------------------------


@case(IPC, "connection of `multiprocessing.Pipe`")
def pipe(place: Place) -> Trial:
    made, other = map(place.enter_context, multiprocessing.Pipe())
    return Trial(made, (number(made.fileno()), end_of_pipe(other)))


@case(IPC, "connection of `multiprocessing.Pipe(duplex=False)`")
def one_way_pipe(place: Place) -> Trial:
    other, made = map(place.enter_context, multiprocessing.Pipe(duplex=False))
    return Trial(made, (number(made.fileno()), end_of_pipe(other)))


@case(IPC, "connection that is closed")
def closed_pipe(place: Place) -> Trial:
    made, _ = map(place.enter_context, multiprocessing.Pipe())
    made.close()
    return Trial(made)


@case(IPC, "`multiprocessing.connection.Listener`")
def listener(place: Place) -> Trial:
    name = str(place.folder / "listener")
    made = place.enter_context(connection.Listener(name))
    fd = made._listener._socket.fileno()  # type: ignore[attr-defined]
    return Trial(made, (number(fd), path(name)))


@case(IPC, "`multiprocessing.Queue`")
def process_queue(place: Place) -> Trial:
    made: Any = _FORK.Queue()
    made.put(1)
    made.get()
    place.finally_(made.close)

    def end(queue: Any) -> None:
        queue.close()
        queue.join_thread()

    fd = made._reader.fileno()
    say = "end, a function that calls `close` and `join_thread`"
    return Trial(made, (number(fd),), release=end, say=say)


@case(IPC, "`multiprocessing.SimpleQueue`")
def simple_queue(place: Place) -> Trial:
    made: Any = _FORK.SimpleQueue()
    place.finally_(made.close)
    return Trial(made, (number(made._reader.fileno()),), release=made.close, say="queue.close")


@case(IPC, "`multiprocessing.Lock`")
def process_lock(_: Place) -> Trial:
    return Trial(_FORK.Lock())


@case(IPC, "`multiprocessing.Semaphore`")
def process_semaphore(_: Place) -> Trial:
    return Trial(_FORK.Semaphore())


@case(IPC, "`multiprocessing.Event`")
def process_event(_: Place) -> Trial:
    return Trial(_FORK.Event())


@case(IPC, "`posix_ipc.MessageQueue`")
def posix_queue(place: Place) -> Trial:
    made = posix_ipc.MessageQueue(f"/{uuid.uuid4()}", posix_ipc.O_CREX)
    place.finally_(made.unlink)
    place.finally_(made.close)
    place.callback(lambda: posix_ipc.MessageQueue(made.name).close())
    return Trial(made, (number(made.mqd, "closed, as by a user; its name stays"),))


@case(IPC, "`posix_ipc.Semaphore`")
def posix_semaphore(place: Place) -> Trial:
    name = f"/{uuid.uuid4()}"
    made = posix_ipc.Semaphore(name, posix_ipc.O_CREX)
    place.finally_(posix_ipc.unlink_semaphore, name)
    return Trial(made, (works(lambda: made.value, "closed, as by a user; its name stays"),))


@case(IPC, "`sysv_ipc.MessageQueue`")
def sysv_queue(place: Place) -> Trial:
    made = sysv_ipc.MessageQueue(None, sysv_ipc.IPC_CREX)
    place.finally_(made.remove)
    place.callback(sysv_ipc.MessageQueue, made.key)
    return Trial(made, (Witness("nobody's any more; its id stays"),))


@case(IPC, "`sysv_ipc.Semaphore`")
def sysv_semaphore(place: Place) -> Trial:
    made = sysv_ipc.Semaphore(None, sysv_ipc.IPC_CREX)
    place.finally_(made.remove)
    place.callback(sysv_ipc.Semaphore, made.key)
    return Trial(made, (Witness("nobody's any more; its id stays"),))


case(IPC, "`queue.Queue`")(lambda _: Trial(queue.Queue()))
case(IPC, "`queue.SimpleQueue`")(lambda _: Trial(queue.SimpleQueue()))
case(IPC, "`threading.Event`")(lambda _: Trial(threading.Event()))
case(IPC, "`threading.Condition`")(lambda _: Trial(threading.Condition()))
case(IPC, "`threading.Barrier`")(lambda _: _barrier(threading.Barrier(2)))
case(IPC, "`threading.local`")(lambda _: Trial(threading.local()))


def _barrier(made: threading.Barrier) -> Trial:
    return Trial(
        made,
        (holds(lambda: not made.broken, "broken: whoever waits is told"),),
        release=made.abort,
        say="barrier.abort",
    )


@case(IPC, "`threading.Lock`, held")
def lock(_: Place) -> Trial:
    return _held(threading.Lock())


@case(IPC, "`threading.Semaphore`, with a permit taken")
def semaphore(_: Place) -> Trial:
    made = threading.Semaphore(1)
    made.acquire()
    return Trial(
        made,
        (holds(lambda: made._value == 0, "given back"),),
        release=made.release,
        say="semaphore.release",
    )


def _held(made: Any) -> Trial:
    made.acquire()
    return Trial(made, (holds(made.locked, "free"),), release=made.release, say="lock.release")
