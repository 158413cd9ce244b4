"""``e2llm check``: a good folder has no finding; every planted defect is found, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from edfio import Bdf, BdfSignal
from layouts import write_cnt, write_gdf, write_persyst
from recordings import CAP, SFREQ, brain, four_files, raw_of, write_edf, write_table
from sample_tables import write_plain
from scipy.io import loadmat, savemat

from e2llm.app.cli import main
from e2llm.data.checkup import check_folder, kind_of
from e2llm.data.simulation import TwinParams, simulate
from e2llm.data.sources.base import SourceError

ORDER = "Channel Order.xlsx"


def clips_of(root: Path, subject: int, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    path = root / "EEG_preprocessed" / f"{subject}.mat"
    clips = {key: value for key, value in loadmat(path).items() if key.isdigit()}
    change(clips)
    savemat(path, clips)


def scaled(factor: float) -> Callable[[dict], None]:
    return lambda clips: clips.update({key: value * factor for key, value in clips.items()})


def repeated(clips: dict) -> None:
    clips["3"] = clips["2"].copy()


def shortened(clips: dict) -> None:
    clips["3"] = clips["3"][:, :-1000]


def too_short(clips: dict) -> None:
    clips["3"] = clips["3"][:, :700]


def with_zeros(clips: dict) -> None:
    clips["1"][:, 900:1500] = 0


def with_nan(clips: dict) -> None:
    clips["1"][4, 5] = np.nan


def with_copies(clips: dict) -> None:
    for x in clips.values():
        x[10] = x[40]


def with_mains(clips: dict) -> None:
    for x in clips.values():
        x += 300 * np.sin(2 * np.pi * 50 * np.arange(x.shape[1]) / 200)


def with_flat_half(clips: dict) -> None:
    clips["2"][:20, 800:1600] = 1.0


def without_a_clip(clips: dict) -> None:
    del clips["2"]


PLANTED = {  # subject: what is done to its clips, and the rules that must find it
    1: (scaled(1e-4), {"amplitude"}), 2: (scaled(1e3), {"amplitude"}), 3: (with_nan, {"unusable"}),
    4: (with_zeros, {"no signal"}), 5: (repeated, {"same signal"}), 6: (shortened, {"clip length"}),
    7: (with_copies, {"copied channels"}), 8: (with_mains, {"mains"}), 9: (with_flat_half, {"flat channels"}),
    10: (without_a_clip, {"unusable"}), 11: (too_short, {"too short", "clip length"}),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("seed") / "SEED-VII"
    return simulate(root, TwinParams(subjects=18, sessions=1, clips=3, seconds=(12.2, 20.0)), n_jobs=1)


def test_fifteen_planted_defects_are_found_and_nothing_else(good, tmp_path):
    root = Path(shutil.copytree(good, tmp_path / "SEED-VII"))
    assert check_folder(root, n_jobs=1).ok
    expected = {(f"{subject}.mat", rule) for subject, (_, rules) in PLANTED.items() for rule in rules}
    for subject, (change, _) in PLANTED.items():
        clips_of(root, subject, change)
    folder = root / "EEG_preprocessed"
    (folder / "12.mat").write_bytes((folder / "12.mat").read_bytes()[:5000])
    shutil.copy(folder / "14.mat", folder / "13.mat")
    (root / "continuous_labels" / "15.mat").unlink()
    for path in (root / "save_info").glob("16_*"):
        path.unlink()
    wrong = next((root / "save_info").glob("17_*_save_info.csv"))
    wrong.write_text(wrong.read_text().replace("neutral", "fear"))
    names = pd.read_excel(root / ORDER, header=None)
    names.iloc[[0, 5]] = names.iloc[[5, 0]].to_numpy()
    names.to_excel(root / ORDER, header=False, index=False)
    expected |= {("12.mat", "unusable"), ("14.mat", "same file"), ("13.mat", "same signal"), ("14.mat", "same signal"),
                 ("15.mat", "no intensities"), ("16.mat", "no log"), ("17.mat", "unusable"), (ORDER, "channel order")}
    checkup = check_folder(root, n_jobs=1)
    assert set(zip(checkup.findings["recording"], checkup.findings["rule"], strict=True)) == expected
    assert not checkup.ok and checkup.kind == "seed-vii"
    assert (checkup.findings[["fact", "remedy"]] != "").all(axis=None)
    used = checkup.recordings.set_index("recording")["used"]
    assert set(used.index[~used]) == {f"{n}.mat" for n in (1, 2, 3, 5, 10, 12, 13, 14, 17)}
    assert len(PLANTED) + 6 >= 15


def test_tables_that_are_missing_unreadable_or_of_no_session_are_named(own_twin):
    clean = check_folder(own_twin, n_jobs=1).findings
    assert not set(clean["rule"]) & {"channel order", "log"}
    (own_twin / ORDER).unlink()
    tables = [next((own_twin / "save_info").glob(f"{subject}_*_trigger_info.csv")) for subject in (1, 2)]
    tables[0].rename(tables[0].with_name("1_20221001_trigger_info.csv"))
    tables[1].write_text("2,1\n")
    found = check_folder(own_twin, n_jobs=1).findings
    rows = found[found["rule"].isin(["channel order", "log"])]
    facts = dict(zip(zip(rows["recording"], rows["rule"], strict=True), rows["fact"], strict=True))
    assert facts[ORDER, "channel order"] == "the table of channels is missing"
    assert facts["1.mat", "log"] == "1_20221001_trigger_info.csv names no session"
    assert len(facts) == len(rows) >= 2 and (rows["remedy"] != "").all()
    (own_twin / ORDER).write_bytes(b"no table")
    again = check_folder(own_twin, n_jobs=1).findings
    (fact,) = again.loc[again["rule"] == "channel order", "fact"]
    assert fact.startswith("it is unreadable (")


def ten_formats(root: Path, too_loud: int = -1) -> list[str]:
    """Ten recordings in ten formats, one perhaps a thousand times too large, and a table of labels; the file names."""
    x = [brain(seed=seed) * (1e3 if seed == too_loud else 1) for seed in range(10)]
    write_edf(root / "a.edf", x[0], notes=[(3.0, 1.0, "eyes closed")])
    Bdf([BdfSignal(row, SFREQ, label=name, physical_dimension="uV")
         for name, row in zip(CAP, x[1], strict=True)]).write(root / "b.bdf")
    mne.export.export_raw(root / "c.vhdr", raw_of(x[2]), verbose="error")
    mne.export.export_raw(root / "d.set", raw_of(x[3]), verbose="error")
    raw_of(x[4]).save(root / "e_raw.fif.gz", verbose="error")
    write_gdf(root / "f.gdf", CAP, x[5], SFREQ)
    write_cnt(root / "g.cnt", CAP, x[6], SFREQ, [])
    write_persyst(root / "h.lay", CAP, x[7], SFREQ)
    write_plain(root / "i.csv", x[8], [f"{name} (uV)" for name in CAP], head=f"# sampling rate: {SFREQ} Hz")
    write_plain(root / "j.tsv", x[9] / 1e3, [f"{name} [mV]" for name in CAP], "\t", ",", "# fs=128", "utf-16",
                times=np.arange(24 * SFREQ) / SFREQ)
    names = ["a.edf", "b.bdf", "c.vhdr", "d.set", "e_raw.fif.gz", "f.gdf", "g.cnt", "h.lay", "i.csv", "j.tsv"]
    write_table(root, names)
    return names


def test_ten_recordings_of_ten_formats_are_read_and_judged(tmp_path):
    names = ten_formats(tmp_path / "mine")
    checkup = check_folder(tmp_path / "mine", n_jobs=1)
    assert checkup.findings.empty, str(checkup)
    assert checkup.recordings["recording"].tolist() == names and checkup.recordings["used"].all()
    assert (checkup.recordings["windows"] == 6).all() and checkup.recordings["sfreq"].eq(SFREQ).all()
    level = checkup.recordings["amplitude_uv"]
    assert level.between(5, 25).all(), level.tolist()  # every format has its own way to say microvolts
    assert "10 of 10 recordings of 10 people can be used" in str(checkup)


@pytest.mark.parametrize("place", range(10))
def test_in_every_format_a_signal_in_another_unit_is_found(tmp_path, place):
    """Each is judged, not only opened."""
    names = ten_formats(tmp_path / "mine", place)
    checkup = check_folder(tmp_path / "mine", n_jobs=1)
    assert set(checkup.findings["recording"]) == {names[place]}, str(checkup)
    assert "amplitude" in set(checkup.findings["rule"]) and checkup.recordings["used"].sum() == 9


def test_recordings_that_cannot_be_read_among_others(tmp_path):
    """A folder as people have it: formats side by side, two of them unreadable, one without a line."""
    root = tmp_path / "mine"
    write_edf(root / "a.edf", brain(seed=1))
    raw_of(brain(seed=5)).save(root / "e_raw.fif", verbose="error")
    (root / "h.mat").write_bytes(b"x" * 200)
    (root / "i.csv").write_text("Fp1,Fp2\n1,2\n")
    write_edf(root / "j.edf", brain(seed=8))
    write_table(root, ["a.edf", "e_raw.fif", "h.mat", "i.csv"])
    checkup = check_folder(root, n_jobs=1)
    bad = checkup.findings.set_index("recording")
    assert set(bad.index) == {"h.mat", "i.csv", "labels.csv"}, str(checkup)
    assert bad.loc["labels.csv", "fact"] == "1 recordings have no line: j.edf"
    assert "no layout that is known" in bad.loc["h.mat", "fact"] + bad.loc["h.mat", "remedy"]
    assert "does not say the unit" in bad.loc["i.csv", "fact"]
    assert checkup.recordings["used"].tolist() == [True] * 2 + [False] * 2


def test_the_command_line(tmp_path, capsys):
    root = four_files(tmp_path / "mine")
    assert main(["check", str(root), "--jobs", "1"]) == 0
    assert "findings: none" in capsys.readouterr().out
    write_edf(root / "<b>.edf", brain(seed=9) * 1e3)
    write_table(root, ["<b>.edf", "b.edf", "c.edf", "d.edf"], "file,subject,session,label")
    page = tmp_path / "page.html"
    assert main(["check", str(root), "--jobs", "1", "--html", str(page)]) == 1
    out, html = capsys.readouterr().out, page.read_text("utf-8")
    assert "refuse: <b>.edf: amplitude: its EEG has" in out
    assert "warn: labels.csv: not in the table: 1 recordings" in out
    assert "&lt;b&gt;.edf" in html and "<b>.edf" not in html and "data:image/png" in html
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize(("made", "kind"), [
    (["labels.csv"], "folder"), (["EEG_preprocessed/"], "seed-vii"), (["EEG_raw/"], "seed-vii-raw"),
    (["Processed_data/"], "faced"), (["dataset_description.json"], "bids"), (["sub-01/eeg/"], "bids"),
    (["sub-01/ses-1/eeg/"], "bids"), (["EEG_preprocessed/", "EEG_raw/"], "seed-vii"),
])
def test_the_kind_of_a_folder(tmp_path, made, kind):
    for name in made:
        path = tmp_path / name
        path.mkdir(parents=True) if name.endswith("/") else path.write_text("{}")
    assert kind_of(tmp_path) == kind


def test_a_folder_that_cannot_be_opened_has_one_finding(tmp_path):
    (tmp_path / "labels.csv").write_text("file,subject,session,label\nnowhere.edf,1,1,rest\n")
    checkup = check_folder(tmp_path)
    assert not checkup.ok and checkup.findings["rule"].tolist() == ["source"]
    assert "nowhere.edf" in checkup.findings["fact"][0] and checkup.findings["remedy"][0] == "correct the table"
    with pytest.raises(SourceError, match="name the kind by --source"):
        kind_of(tmp_path / "..")


def test_columns_and_names_that_are_not_read(tmp_path):
    root = four_files(tmp_path / "mine")
    text = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([f"{text[0]};age".replace(",", ";"),
                                                *(f"{line};30".replace(",", ";") for line in text[1:])]))
    checkup = check_folder(root, n_jobs=1)
    assert checkup.ok and checkup.findings["fact"].tolist() == ["the columns age are not read"]
    assert "labels.csv is read as semicolons, utf-8" in checkup.well
