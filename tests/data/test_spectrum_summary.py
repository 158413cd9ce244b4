"""Summaries of spectra: signals whose spectrum is known, and the committed averages of EEGMAT."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from e2llm.data.preprocessing import Windows
from e2llm.data.spectrum_summary import EEGMAT_FILE, eegmat_reference, summarize, write_eegmat_reference

EEGMAT = Path(__file__).parents[3] / "shared" / "data" / "eegmat"
ROWS = {"01": 70, "02": 2}  # windows of each person; the first has more than are read


@pytest.fixture
def windows() -> Windows:
    """White noise of 2 µV (person 01) and 4 µV (02), with a sine of 10 Hz and 20 µV at O1."""
    rng = np.random.default_rng(0)
    subjects = np.repeat(list(ROWS), list(ROWS.values()))
    signal = rng.normal(size=(len(subjects), 3, 1024)) * np.where(subjects == "01", 2, 4)[:, None, None]
    signal[:, 2] += 20 * np.sin(2 * np.pi * 10 * np.arange(1024) / 256)
    return Windows(signal.astype(np.float32), np.empty(0), np.empty(0), pd.DataFrame({"subject": subjects}),
                   ["FZ", "CZ", "O1"], 256.0)


def test_levels_are_power_densities_and_the_mean_is_of_power(windows):
    found = summarize(windows)
    assert found.frequencies == list(np.arange(2, 91) / 2) and np.shape(found.people_db) == (2, 89)
    flat = np.array(found.frequencies) > 15
    for level, microvolts in zip(found.people_db, (2, 4), strict=True):
        assert np.mean(np.array(level)[flat]) == pytest.approx(10 * np.log10(microvolts**2 / 128), abs=0.3)
    assert np.mean(found.mean_db[flat]) == pytest.approx(10 * np.log10((4 + 16) / 2 / 128), abs=0.3)
    assert found.frequencies[int(found.mean_db.argmax())] == 10


def test_the_map_shows_where_alpha_is_and_has_a_mean_of_zero(windows):
    alpha = summarize(windows).alpha_db
    assert np.argmax(alpha) == 2 and np.mean(alpha) == pytest.approx(0, abs=0.02)


def test_windows_are_taken_from_the_whole_recording(windows):
    windows.data[35:70] *= 10  # the second half of person 01
    doubled = 10 * np.log10((1 + 100) / 2)
    level = np.mean(np.array(summarize(windows).people_db[0])[30:])
    assert level == pytest.approx(10 * np.log10(4 / 128) + doubled, abs=0.5)


def test_the_reference_names_its_source_and_licence():
    stored = json.loads(EEGMAT_FILE.read_text())
    assert "EEGMAT" in stored["source"] and "Data 2019, 4(1):14" in stored["source"] and "ODC-By" in stored["license"]
    reference = eegmat_reference()
    assert np.shape(reference.people_db) == (10, 89) and len(reference.ch_names) == len(reference.alpha_db) == 19
    loudest = sorted(zip(reference.alpha_db, reference.ch_names, strict=True))[-2:]
    assert {name for _, name in loudest} == {"O1", "O2"}


def test_the_reference_is_made_again_from_the_recordings(tmp_path):
    if not EEGMAT.is_dir():
        pytest.skip("the EEGMAT excerpt is not in shared/data/eegmat")
    write_eegmat_reference(EEGMAT, tmp_path / "again.json")
    made, stored = (json.loads(path.read_text()) for path in (tmp_path / "again.json", EEGMAT_FILE))
    for name in ("people_db", "alpha_db"):
        np.testing.assert_allclose(made.pop(name), stored.pop(name), atol=0.02)
    assert made == stored
