"""Every exception that Probate raises, in one tree; and the description of errors for accounts.

    ProbateError
    ├── PluginError                     a plugin cannot be used as it is
    │   ├── MissingHookError            a required hook is not there, or not marked
    │   ├── UnknownHookError            a marked hook that no specification knows
    │   ├── HookOrderError              tryfirst/trylast on a resource plugin
    │   ├── UnusablePluginError         pluggy cannot work with it
    │   ├── DuplicateKindError          the kind is taken
    │   ├── UnknownKindError            no plugin serves the kind (also a KeyError)
    │   ├── InvalidOrderingError        ordering() gave something unusable
    │   └── OrderingCycleError          before/after contradict one another
    ├── ProcessError                    about one pid
    │   ├── ProcessNotFoundError        never issued, or forgotten (also a LookupError)
    │   ├── ProcessTerminatedError      terminating or terminated: owns nothing more
    │   └── TerminationDeadlockError    a termination would have to wait for itself
    ├── JournalNotArmedError            nobody would give back what is made (also a RuntimeError)
    ├── PidfdUnavailableError           this system cannot hold on to OS processes
    ├── NoCurrentProcessError           no pid given, and no process is current (also a LookupError)
    ├── OwnershipError                  about one resource and its owner
    │   ├── NotOwnedError               somebody else's, or nobody's
    │   └── AlreadyOwnedError           each thing has one owner
    ├── UnadoptableError                no kind takes this object (also a TypeError)
    ├── ResourceLimitExceeded           refused before anything was acquired
    └── ReleaseError                    raised by a release function; carries an Outcome
        ├── BusyResourceError           still in use: try again after the other kinds
        ├── ReleaseTimeoutError         did not come free in time
        ├── RefusedResourceError        not ours, or still in use by others
        └── UnsettledResourceError      somebody else is to end it: nobody knows yet

`ObservationUnavailableError`, and the errors of `settings` and `process`, are in it, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

from probate.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from probate.models import CleanupStats


class ProbateError(Exception):
    """Catches every error that Probate raises on purpose: the root of them all."""


# -- plugins -----------------------------------------------------------------


class PluginError(ProbateError):
    """Raised when a plugin cannot be used as it is; nothing is registered then."""


@final
class MissingHookError(PluginError):
    """Raised when a resource plugin lacks a required hook, or has it without a mark."""

    def __init__(self, kind: str, missing: Sequence[str], unmarked: Sequence[str] = ()) -> None:
        names = ", ".join(f"{name}()" for name in missing)
        way_out = f"define {names} and mark each with @probate.hookimpl"
        if unmarked:
            marks = ", ".join(f"{name}()" for name in unmarked)
            way_out += f" ({marks} is there, but has no mark)"
        super().__init__(f"plugin {kind!r} lacks the required hook {names}: {way_out}")
        self.kind = kind
        self.missing = tuple(missing)


@final
class UnknownHookError(PluginError):
    """Raised when a plugin marks a function that is no hook: most often a misspelling."""

    def __init__(self, plugin: str, hook: str, nearest: str | None) -> None:
        hint = f"did you mean {nearest!r}?" if nearest else "see probate.hookspecs for the hooks"
        super().__init__(f"plugin {plugin!r} implements an unknown hook {hook!r}: {hint}")
        self.plugin = plugin
        self.hook = hook
        self.nearest = nearest


@final
class HookOrderError(PluginError):
    """Raised when a resource plugin marks a hook tryfirst or trylast: `ordering` says its place."""

    def __init__(self, kind: str, hook: str) -> None:
        super().__init__(
            f"plugin {kind!r} marks {hook}() tryfirst or trylast: a resource plugin's place is "
            "what ordering() says; use its priority, before and after"
        )


@final
class UnusablePluginError(PluginError):
    """Raised when pluggy cannot work with a plugin, or when it serves another orchestrator."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(f"plugin {kind!r} cannot be used: {problem}")
        self.kind = kind


@final
class DuplicateKindError(PluginError):
    """Raised when a plugin is registered for a kind that another one serves already."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"kind {kind!r} is registered already: one plugin serves one kind; "
            "disable the other, or register this one under another name"
        )


@final
class UnknownKindError(PluginError, KeyError):
    """Raised when a kind is asked for, or named in a setting, that no registered plugin serves.

    `why` says what became of a plugin that was found, `where` in which setting it is named.
    """

    def __init__(self, kind: str, known: Iterable[str], why: str = "", where: str = "") -> None:
        super().__init__(kind)
        known = list(known)
        if not why:
            from probate.system.spelling import nearest

            near = nearest(kind, known)
            why = f"did you mean {near!r}?" if near else f"is probate-{kind} installed?"
        self._message = (
            f"no plugin serves kind {kind!r}; registered: {', '.join(known) or 'none'} "
            f"({f'{where}; ' if where else ''}{why})"
        )

    def __str__(self) -> str:
        return self._message


@final
class InvalidOrderingError(PluginError):
    """Raised when a plugin's `ordering()` fails, or returns what is no `Ordering`."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(f"plugin {kind!r}: ordering() {problem}")


@final
class OrderingCycleError(PluginError):
    """Raised when `before` and `after` of several kinds contradict one another."""

    def __init__(self, members: Sequence[str]) -> None:
        super().__init__(
            f"before/after of these kinds form a cycle: {' before '.join(members)}; "
            "remove one of the constraints"
        )
        self.members = tuple(members)


# -- processes ---------------------------------------------------------------


class ProcessError(ProbateError):
    """Catches the errors about one pid."""

    def __init__(self, pid: int, message: str) -> None:
        super().__init__(message)
        self.pid = pid


@final
class ProcessNotFoundError(ProcessError, LookupError):
    """Raised when the manager never issued a pid, or has forgotten its account."""

    def __init__(self, pid: int) -> None:
        super().__init__(pid, f"no process {pid}: not created by this manager, or long gone")


@final
class ProcessTerminatedError(ProcessError):
    """Raised when a process that is terminating, or has terminated, is to own something."""

    def __init__(self, pid: int) -> None:
        super().__init__(
            pid, f"process {pid} is terminating or has terminated: it can acquire nothing more"
        )


@final
class TerminationDeadlockError(ProcessError):
    """Raised when a thread or event loop is to wait for a termination that it is to run itself."""

    def __init__(self, pid: int) -> None:
        super().__init__(
            pid,
            f"process {pid} is being terminated by this very thread or event loop: "
            "it cannot also wait for the result; await terminate_process_async, or leave it be",
        )


@final
class JournalNotArmedError(ProbateError, RuntimeError):
    """Raised for what is to be made, and nobody would give back should this process die."""


@final
class PidfdUnavailableError(ProbateError):
    """Raised when kernel, sandbox or Python have no pidfds: no process is held by pid alone."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"pidfd_open(2) is not available ({problem}): OS processes need Linux 5.4 or later, "
            "and a sandbox that allows pidfd_open and pidfd_send_signal"
        )


@final
class NoCurrentProcessError(ProbateError, LookupError):
    """Raised when no pid is given and no process is current in this context."""

    def __init__(self) -> None:
        super().__init__(
            "no process is current here: pass a pid, or work inside `with manager.process(...)`"
        )


class OwnershipError(ProbateError):
    """Catches the errors about one resource and its owner."""


@final
class NotOwnedError(OwnershipError):
    """Raised when a process is to give back or hand over what it does not own."""

    def __init__(self, kind: str, pid: int, what: str, owner: int | None = None) -> None:
        whose = "nobody here does" if owner is None else f"process {owner} does"
        super().__init__(f"{kind}: process {pid} does not own {what}; {whose}")
        self.kind = kind
        self.pid = pid
        self.owner = owner


@final
class AlreadyOwnedError(OwnershipError):
    """Raised when an object has an owner already: each is released once, by one owner.

    `owner` is that process, None if it is just being given back; `owned_as` the kind that has it,
    which may be another one: a socket's number is the socket's.
    """

    def __init__(
        self,
        kind: str,
        what: str,
        owner: int | None,
        *,
        owned_as: str | None = None,
        is_elsewhere: bool = False,
    ) -> None:
        whose = "a process" if owner is None else f"process {owner}"
        way_out = "transfer it instead"
        if owned_as is not None and owned_as != kind:
            way_out = "transfer that instead, or have its owner disown it"
            whose += f", as one of its {owned_as},"
        if is_elsewhere:
            whose += " of another orchestrator"
            way_out = "have its owner disown it first"
        super().__init__(f"{kind}: {what} is owned by {whose} already; {way_out}")
        self.kind = kind
        self.owner = owner
        self.owned_as = kind if owned_as is None else owned_as


@final
class UnadoptableError(ProbateError, TypeError):
    """Raised when no registered kind takes responsibility for an object.

    `refusals` are why kinds that know such objects do not take this one.
    """

    def __init__(
        self,
        resource: object,
        kinds: Sequence[str],
        *,
        refusals: Sequence[str] = (),
        is_callback: bool = False,
    ) -> None:
        if is_callback:
            way_out = "; pip install probate-callbacks, the kind that calls functions"
        elif refusals:
            # They say it, where there is one: what is closed has none.
            way_out = ""
        else:
            way_out = "; say how it is given back: adopt(thing, release=thing.close)"
        why = "; ".join(refusals) or safe_repr(resource)
        super().__init__(
            f"no kind adopts this {type(resource).__qualname__}: {why}; "
            f"asked: {', '.join(kinds) or 'none registered'}{way_out}"
        )


@final
class ResourceLimitExceeded(ProbateError):  # noqa: N818  the name is part of the public contract
    """Raised when a limit refuses an acquisition; nothing was acquired."""

    def __init__(
        self, kind: str, pid: int, unit: str, limit: int, held: int, requested: int
    ) -> None:
        super().__init__(
            f"{kind}: process {pid} holds {held} of at most {limit} {unit} and asked for "
            f"{requested} more; release some, or raise the limit"
        )
        self.kind = kind
        self.pid = pid
        self.limit = limit
        self.held = held
        self.requested = requested


# -- release -----------------------------------------------------------------


class ReleaseError(ProbateError):
    """Raised by a release function that did not succeed; its text goes into the account."""

    #: What the account says of the resource.
    outcome: ClassVar[Outcome] = Outcome.FAILED


@final
class BusyResourceError(ReleaseError):
    """Raised for what is still in use: it stays owned, and is tried again after other kinds."""

    outcome = Outcome.BUSY


@final
class ReleaseTimeoutError(ReleaseError):
    """Raised for what did not come free in time: it stays owned."""

    outcome = Outcome.TIMEOUT


@final
class RefusedResourceError(ReleaseError):
    """Raised for what is not ours, or in use by others: it is left as it is, and owned no more."""

    outcome = Outcome.REFUSED


@final
class UnsettledResourceError(ReleaseError):
    """Raised for what somebody else is to make, or end: the text says who, and by when."""

    outcome = Outcome.UNSETTLED


@final
class InterruptedCleanup(BaseException):
    """Raised when an interrupt came during a cleanup; everything was tried all the same.

    `interrupt` is the KeyboardInterrupt or SystemExit (also the `__cause__`), `stats` the account
    of what was done. The orchestrator raises `interrupt` itself when the termination is finished.
    """

    def __init__(self, interrupt: BaseException, stats: CleanupStats) -> None:
        super().__init__(f"{type(interrupt).__name__} during a cleanup, which was completed")
        self.interrupt = interrupt
        self.stats = stats


# -- descriptions --------------------------------------------------------------


def describe_error(error: BaseException) -> str:
    """Describe an error by its type and message; never raises."""
    message = safe_repr(error, str, otherwise="")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def safe_repr(
    thing: object, describe: Callable[..., object] = repr, *, otherwise: str | None = None
) -> str:
    """Describe `thing` by `describe`; raises nothing but what falls in from outside.

    If that raises or returns no string, it is `otherwise`, or else the plainest repr there is.
    Undecodable file names (PEP 383) come out in backslashes: an account must fit into JSON.
    """
    try:
        text = describe(thing)
    except BaseException as error:
        # Imported here: only a failure needs it, and it lies above.
        from probate.system.interrupts import fell_in

        if fell_in(error):
            raise
        text = None
    if not isinstance(text, str):
        text = object.__repr__(thing) if otherwise is None else otherwise
    return text.encode("utf-8", "backslashreplace").decode()
