"""Header of an EDF or BDF file: what MNE does not tell of it.

MNE joins the records of a discontinuous file, brings all channels to the highest rate, takes a unit that it does not
know for volts, and reads what is there of a file that was cut. A reader of labelled stretches has to know of all four.
The layout is that of Kemp & Olivan 2003, Clin. Neurophysiol. 114:1755 (EDF+); BDF has three bytes a sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class EdfHeader:
    """Facts of the header, and of the size of the file.

    Parameters
    ----------
    names, units : tuple of str
        Labels and physical dimensions of the signals, as they are written.
    rates : tuple of float
        Samples a second of every signal.
    record_s : float
        Length of a record in seconds.
    stated, found : int
        Records by the header (-1: not known when it was written), and by the size of the file.
    starts : tuple of float
        Start of every record of a discontinuous file (EDF+D, BDF+D) in seconds; empty for any other.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    rates: tuple[float, ...]
    record_s: float
    stated: int
    found: int
    starts: tuple[float, ...] = ()

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """Start and length in seconds of every gap between records; of less than a hundredth of a record is none."""
        ends = [(start + self.record_s, after) for start, after in zip(self.starts, self.starts[1:], strict=False)]
        return [(end, after - end) for end, after in ends if abs(after - end) > 0.01 * self.record_s]

    def rate_of(self, channel: str) -> float | None:
        """Rate of a channel in Hz, None if the file has none of this name."""
        return dict(zip(self.names, self.rates, strict=True)).get(channel)

    def unit_of(self, channel: str) -> str | None:
        """Unit of a channel as it is written, None if the file has none of this name."""
        return dict(zip(self.names, self.units, strict=True)).get(channel)


def read_edf_header(path: Path) -> EdfHeader | None:
    """Header of a file by its suffix, or None for another format or a header that is not one."""
    if path.suffix.lower() not in (".edf", ".bdf", ".rec") or not path.is_file():
        return None
    facts = path.stat()
    try:
        return _read(path, facts.st_size, facts.st_mtime_ns)
    except (ValueError, OverflowError):
        return None  # MNE says what is wrong with it


@lru_cache(maxsize=256)
def _read(path: Path, size: int, _changed: int) -> EdfHeader | None:
    with path.open("rb") as file:
        fixed = file.read(256).decode("latin-1")
        n = int(fixed[252:256])
        stated, record_s, header_bytes = int(fixed[236:244]), float(fixed[244:252]), int(fixed[184:192])
        text = file.read(256 * max(n, 0)).decode("latin-1")
        names, units = ([text[at * n + i * width : at * n + (i + 1) * width].strip() for i in range(n)]
                        for at, width in ((0, 16), (96, 8)))
        samples = [int(text[216 * n + 8 * i : 216 * n + 8 * (i + 1)]) for i in range(n)]
        sample_bytes = 3 if path.suffix.lower() == ".bdf" else 2
        record_bytes = sample_bytes * sum(samples)
        if record_bytes <= 0 or min(samples) < 0 or header_bytes < 0 or not 0 < record_s < math.inf:
            return None
        found = (size - header_bytes) // record_bytes
        starts: list[float] = []
        if fixed[192:197] in ("EDF+D", "BDF+D"):
            notes = next((i for i, name in enumerate(names) if name in ("EDF Annotations", "BDF Annotations")), None)
            if notes is None:
                return None
            at, length = (sample_bytes * k for k in (sum(samples[:notes]), samples[notes]))
            for record in range(found):
                file.seek(header_bytes + record * record_bytes + at)
                starts.append(float(file.read(length).split(b"\x14", 1)[0]))
    rates = [count / record_s for count in samples]
    return EdfHeader(tuple(names), tuple(units), tuple(rates), record_s, stated, found, tuple(starts))
