"""What to do about a file that MNE cannot read: advice for formats that are recognized, and for no others."""

from __future__ import annotations

from pathlib import Path

# Files that belong to a header file, and formats that MNE does not read: what to do.
_REMEDIES = {
    ".vhdr": "A BrainVision recording is a .vhdr, a .vmrk and a .eeg file: copy all of them, under the names that the "
             "header file holds",
    ".ahdr": "A BrainVision recording is an .ahdr, an .amrk and an .eeg file: copy all of them, under the names that "
             "the header file holds",
    ".cdt": "A Curry recording is a .cdt file with its .dpa or .dpo file: copy all of them",
    ".lay": "A Persyst recording is a .lay and a .dat file: copy all of them",
    ".mat": "A .mat file has no layout that is known for EEG: read it with scipy.io.loadmat and save it as FIF "
            "(mne.io.RawArray), or use the source of its dataset",
    ".csv": "A table of samples is read by the source 'folder'; save it as FIF for any other",
    ".npy": "An array has neither names nor rate: make an mne.io.RawArray of it and save it as FIF",
}
_SET_IN_TWO = ("An EEGLAB recording may be a .set file with an .fdt file: copy all of them, under the names that the "
               "header file holds")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_POINTERS = (b"git-lfs.github.com/spec", b"annex/objects/")
_FETCH = "fetch its content (datalad get, git annex get, git lfs pull)"


def is_ant(path: Path) -> bool:
    """Whether a ``.cnt`` is of ANT Neuro; those of Neuroscan have the same suffix and nothing else in common."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"RIFF"


def remedy_for(path: Path, fact: str) -> str:
    """What to do about a file that MNE cannot read, as far as it is certain; else nothing.

    Parameters
    ----------
    path : Path
        The file.
    fact : str
        What MNE says.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        return f"It is a link to a file that is not there: {_FETCH}" if path.is_symlink() else (
            "It is not there: correct the path")
    if path.is_dir() and (suffix == ".mff" or not suffix):
        return "Install what MNE asks for" if suffix else "It is a folder: give a file, or a folder that is a format"
    begins = b""
    if path.is_file():
        with path.open("rb") as file:
            begins = file.read(132)
    if any(mark in begins for mark in _POINTERS):
        return f"It holds only the address of a recording: {_FETCH}"
    if "number of trials" in fact or path.stem.endswith(("-epo", "_epo")):
        return "It holds epochs that were cut already: save the continuous recording, for the filter needs it"
    if path.suffix != suffix and f"'{path.suffix}'" in fact:
        return f"MNE wants {suffix} in small letters: rename the file"
    if suffix == ".cnt" and is_ant(path):
        return "It is a .cnt of ANT Neuro, not of Neuroscan: install what MNE asks for, or save it as EDF"
    if suffix == ".set" and (begins.startswith(_HDF5) or b"MATLAB 7.3" in begins):
        return "It is saved as MATLAB 7.3: save it in EEGLAB with version 7 or 6, or install what MNE asks for"
    if suffix == ".set":
        return _SET_IN_TWO if ".fdt" in fact else ""
    if suffix == ".dat":
        is_curry = any(path.with_suffix(other).exists() for other in (".dap", ".rs3", ".DAP", ".RS3"))
        if is_curry:
            return "A Curry recording is a .dat, a .dap and an .rs3 file: copy all of them"
        if begins[:1] == b"\x80":
            return ("It is a pickle, as DEAP distributes it, which may run code when it is opened: save its arrays as "
                    "FIF (mne.io.RawArray) yourself")
        return "No file beside it says what the .dat holds: copy the header, or save it as FIF"
    if suffix == ".lay" and path.with_suffix(".dat").exists():
        return ""
    if suffix == ".eeg" and (header := path.with_suffix(".vhdr")).exists():
        return f"It holds the samples of a BrainVision recording: give its header {header.name}"
    return _REMEDIES.get(suffix, "")
