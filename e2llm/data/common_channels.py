"""Which channels the recordings of a source have in common, and which recordings fit together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..core.montage import canonical
from .sources.base import RecordingError, Source, SourceError


def usable_recordings(source: Source, wanted: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Channels of every usable recording, and the recordings that cannot be used.

    A recording that fails its check is left out, and so is one that lacks most of the wanted channels, or of those that
    most others have.

    Parameters
    ----------
    source : Source
        Opened.
    wanted : sequence of str
        As in :class:`e2llm.data.preprocess_params.PreprocessParams`.

    Returns
    -------
    channels : dict of str to list of str
        Recording to its channels by their canonical names.
    skipped : dict of str to str
        Recording to the reason.

    Raises
    ------
    SourceError
        If no recording is left.
    """
    channels, skipped = {}, {}
    for recording in source.recordings:
        try:
            names = source.check(recording)
        except RecordingError as error:
            skipped[recording.name] = str(error)
            continue
        channels[recording.name] = [canonical(name) for name in getattr(source, "ch_names", names)]
    counts = Counter(name for names in channels.values() for name in names)
    frequent = [name for name, n in counts.items() if 2 * n > len(channels)]
    typical = {canonical(name) for name in wanted} or set(frequent)
    which = "of the wanted channels" if wanted else "channels of the other recordings"
    for name, names in list(channels.items()):
        if 2 * len(typical & set(names)) < len(typical):
            skipped[name] = f"{name} lacks most {which} (has {names[:6]}): rename its channels or drop it."
            del channels[name]
    if not channels:
        reason = next(iter(skipped.values()), "the source has no recordings")
        raise SourceError(f"No recording of {source.root} could be used; the first reason: {reason}")
    return channels, skipped


def agreed_channels(channels: dict[str, list[str]], wanted: Sequence[str], missing: str) -> tuple[list[str], list[str]]:
    """Channels that all windows will have, and those that were wanted.

    Parameters
    ----------
    channels : dict of str to list of str
        From :func:`usable_recordings`.
    wanted, missing
        As in :class:`e2llm.data.cleaning.PreprocessParams`.

    Raises
    ------
    SourceError
        If no channel is left.
    """
    counts = Counter(name for names in channels.values() for name in names)
    shared = [name for name, n in counts.items() if n == len(channels)]
    frequent = [name for name, n in counts.items() if 2 * n > len(channels)]
    target = [canonical(name) for name in wanted] or frequent
    usable = target if missing == "interpolated" else [name for name in target if name in shared]
    if not usable:
        first = ", ".join(list(channels)[:3])
        raise SourceError(f"The recordings {first}, … share no channel: rename their channels, or set missing to "
                          "'interpolated'.")
    return usable, target


def placed_by_position(source: Source, names: list[str]) -> dict[str, dict[str, list]]:
    """Channels placed by a measured position: recording to channel to its place and the distance from it, mm.

    Parameters
    ----------
    source : Source
        Its recordings.
    names : list of str
        Of the recordings.
    """
    matches = {name: match for name, match in getattr(source, "matches", {}).items()
               if name in names and match.by_position}
    return {name: {channel: [match.places[channel], mm] for channel, mm in match.by_position.items()}
            for name, match in matches.items()}
