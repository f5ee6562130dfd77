"""`probate plugins --check`: the static part of the conformance kit, for what is installed."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from probate.cli.output import printable
from probate.errors import UnknownKindError, describe_error
from probate.orchestrator import ResourceOrchestrator
from probate.outcome import PluginStatus
from probate.plugins import discovery
from probate.plugins.requirement import has_no_end, range_of
from probate.testing.conformance.static import OBSERVES, find_faults
from probate.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_plugin(kind: str, *, as_json: bool) -> int:
    """Print what is wrong with the plugin that serves a kind; return 1 if anything is.

    Nothing of the kind is made. Raises UnknownKindError if nothing serves it.
    """
    installed = discovery.scan()
    if kind not in {each.kind for each in installed}:
        raise UnknownKindError(kind, sorted({each.kind for each in installed}))
    mine = [each for each in installed if each.kind == kind]
    chosen = (
        each for each in discovery.choose(mine, None, ()) if isinstance(each, discovery.Found)
    )
    found = next(chosen, mine[0])
    faults = list(dict.fromkeys(_faults_of(found)))
    where = f"{kind} ({found.distribution} {found.version})"
    if as_json:
        keys = ("kind", "distribution", "version")
        print(json.dumps({**dict(zip(keys, found[:3], strict=True)), "faults": faults}, indent=2))  # noqa: T201  it is a command's output
    else:
        count = f"{len(faults) or 'no'} fault{'' if len(faults) == 1 else 's'}"
        for line in [f"{where}: {count}", *(f"- {each}" for each in faults)]:
            print(printable(line))  # noqa: T201  it is a command's output
    return int(bool(faults))


def _faults_of(found: discovery.Found) -> Iterator[str]:
    """Look at it by itself, and then beside all that is installed."""
    if found.unmet:
        # It is never imported, so that there is no more to be said.
        yield f"it asks for {found.unmet}, which this core is not"
        return
    try:
        discovery.load(found)
    except (Exception, SystemExit) as error:
        yield f"it cannot be loaded: {describe_error(error)}"
        return
    _, faults = find_faults(partial(discovery.load, found), found.kind)
    if faults != [OBSERVES]:
        yield from faults
    distribution = found.entry_point.dist
    if has_no_end((distribution and distribution.requires) or ()):
        yield (
            "any later core loads it, whatever has become of the contract: have its distribution "
            f"depend on probate{range_of(__version__)}"
        )
    if not faults:
        for record in ResourceOrchestrator().discover().records:
            is_it = (record.kind, record.distribution) == (found.kind, found.distribution)
            if is_it and record.status is not PluginStatus.LOADED:
                yield f"it is {record.status}: {record.reason}"
