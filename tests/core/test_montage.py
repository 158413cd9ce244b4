"""Channel names of any cap find their place on the head and in the EEGPT vocabulary."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from e2llm.core.channel_names import foreign_names
from e2llm.core.montage import (
    EEGPT_UNTRAINED,
    EEGPT_VOCABULARY,
    FRONTAL_PAIRS,
    REGIONS,
    SEED_CHANNELS,
    bipolar_pair,
    canonical,
    eegpt_channels,
    known_channels,
    make_info,
    match_channels,
    region_indices,
    region_of,
)


def positions(names: list[str]) -> np.ndarray:
    return np.array([channel["loc"][:3] for channel in make_info(names, 200.0)["chs"]])


def test_sizes_of_the_vocabularies():
    assert len(set(SEED_CHANNELS)) == len(SEED_CHANNELS) == 62
    assert len(set(EEGPT_VOCABULARY)) == len(EEGPT_VOCABULARY) == 62
    trained = [name for name in EEGPT_VOCABULARY if name not in EEGPT_UNTRAINED]
    assert len(trained) == 58
    assert eegpt_channels(list(SEED_CHANNELS)) == trained
    assert set(SEED_CHANNELS) - set(EEGPT_VOCABULARY) == {"CB1", "CB2"}


def test_untrained_channels_only_on_request():
    kept = eegpt_channels(list(SEED_CHANNELS), trained_only=False)
    assert len(kept) == 60 and set(kept) & EEGPT_UNTRAINED == {"PO5", "PO6"}


def test_the_order_is_the_vocabularys_whatever_the_cap():
    assert eegpt_channels(["O2", "EEG T3-Ref", "Fp1", "ECG"]) == ["FP1", "T7", "O2"]


def test_a_cap_without_known_names_is_refused():
    with pytest.raises(ValueError, match=r"None of the channels \['A1', 'ECG'\].*rename"):
        eegpt_channels(["A1", "ECG"])


@pytest.mark.parametrize(("name", "standard"), [
    ("T3", "T7"), ("T4", "T8"), ("T5", "P7"), ("T6", "P8"), ("Fp1", "FP1"), ("EEG T3-Ref", "T7"), ("EEG Fp1-LE", "FP1"),
    ("EEG_Cz", "CZ"), ("eeg pz-avg", "PZ"), ("Fc5.", "FC5"), ("EEG Fp2..", "FP2"), ("C3-A2", "C3"), ("C4-M1", "C4"),
    ("", ""),
])
def test_spellings(name, standard):
    assert canonical(name) == standard


@pytest.mark.parametrize(("name", "standard"), [
    ("EEG-C3", "C3"), ("EEG:C3", "C3"), ("POL C3", "C3"), ("C3-A1A2", "C3"), ("POL T4-Ref", "T8"), ("C3 - A1", "C3"),
    ("P3-(A1+A2)", "P3"), ("EEG O1-LER", "O1"), ("Cz-0", "CZ"), ("EEG Fpz-CAR", "FPZ"), ("EEGC3", "C3"), ("pz ", "PZ"),
])
def test_every_part_of_a_name_is_understood(name, standard):
    assert canonical(name) == standard and known_channels([name]) == [name]


@pytest.mark.parametrize("name", ["C3_F7", "C3 imp", "C3 impedance", "Cz off", "O1 new", "Fp1 F3", "C3-marker",
                                  "T3 ECG", "F3_temp", "POLY 1", "Cz!"])
def test_a_name_of_which_a_part_is_not_understood_has_no_place(name):
    assert known_channels([name]) == [] and match_channels([name]).places == {}


@pytest.mark.parametrize(("names", "places"), [
    (["Fp1-Pz", "Fp2-Pz", "O1-Pz"], ["FP1", "FP2", "O1"]), (["EEG F3-Cz", "EEG F4-Cz", "EEG T3-Cz", "ECG"],
                                                            ["F3", "F4", "T7"]),
    (["Fp1-FCz", "Fp2-FCz", "C3-FCz", "C4-FCz"], ["FP1", "FP2", "C3", "C4"]),
    (["Fp1-F7", "F7-T3", "T3-T5"], []), (["Fp1-Pz", "Fp2-Pz"], []), (["Fp1-F7", "F3-Pz", "F4-Pz", "C3-Pz"], []),
])
def test_a_site_that_all_channels_share_is_their_reference(names, places):
    match = match_channels(names)
    assert list(match.places.values()) == places and (not match.bipolar) == bool(places)


def test_caps_of_public_reports():
    """Names as people have written them in reports to MNE (mne-python issues 8455, 8830, 7857, 4201)."""
    sports = ["Fp1", "Fpz", "Fp2", "F7", "M1", "T7", "C3", "Cz", "M2", "CP5", "EOG", "AF7", "POz"]
    match = match_channels([f"EEG {name}-CPz" for name in sports])
    assert list(match.places.values()) == [name.upper() for name in sports if name not in ("M1", "M2", "EOG")]
    assert match.unplaced == ("EEG M1-CPz", "EEG M2-CPz", "EEG EOG-CPz") and match.bipolar == ()
    net = ["EEG-0", "F8", "EEG-2", "EEG-3", "FP2", "EEG-18", "Fz", "NAS", "F3", "EEG-256"]
    assert list(match_channels(net).places) == ["F8", "FP2", "Fz", "F3"]
    assert list(match_channels(["fp1-le", "fp2-le", "cz-le"]).places.values()) == ["FP1", "FP2", "CZ"]
    assert match_channels([f"EEG {i}" for i in range(1, 129)]).places == {}


@pytest.mark.parametrize("names", [["O1-0", "O1-1", "Fp1"], ["O1", "O1 ", "Fp1"], ["EEG O1", "O1-Ref", "Fp1"],
                                   ["O1-0", "O1-1", "Fp1-0", "Fp1-1"], ["T7", "T3", "Fp1"]])
def test_a_site_that_stands_twice_is_named(names):
    assert match_channels(names).doubled == sorted({canonical(name) for name in names} - ({"FP1"} if "Fp1" in names
                                                                                          else set()))


@pytest.mark.parametrize(("names", "foreign"), [
    ([f"{letter}{i}" for letter in "ABCD" for i in range(1, 33)], {"C1", "C2", "C3", "C4", "C5", "C6"}),  # BioSemi 128
    ([f"O{i}" for i in range(1, 15)], {"O1", "O2"}), ([f"F{i:02d}" for i in range(1, 20)], {"F10"}),
    ([f"EEG P{i}" for i in range(1, 17)], {f"P{i}" for i in range(1, 11)}),  # contacts of depth electrodes
    (list(EEGPT_VOCABULARY), set()), (["C3", "C4", "A1", "A2", "ECG1", "E1", "E2"], set()),
])
def test_names_that_only_look_like_the_10_20_system(names, foreign):
    assert {canonical(name) for name in foreign_names(names, known_channels(names))} == foreign


def test_known_channels_keep_spelling_and_order():
    assert known_channels(["EEG O2", "ECG", "EEG T3-Ref", "EEG A2-A1"]) == ["EEG O2", "EEG T3-Ref"]


def test_unknown_channels_are_listed():
    with pytest.raises(ValueError, match=r"\['ECG', 'HEO'\].*drop these channels or rename"):
        make_info(["CZ", "ECG", "HEO"], 200.0)


def test_reference_sites_are_not_on_the_scalp():
    """MNE's montage places earlobes and mastoids; as channels they would distort the average reference."""
    assert known_channels(["A1", "A2", "M1", "M2", "EEG A2-A1", "CZ"]) == ["CZ"]
    with pytest.raises(ValueError, match="'M1'"):
        make_info(["CZ", "M1"], 200.0)


def test_left_is_left_and_front_is_front():
    """Odd numbers lie left (x < 0), even right, F before O, and every pair is a mirror image to a few millimetres."""
    xyz = dict(zip(SEED_CHANNELS, positions(list(SEED_CHANNELS)), strict=True))
    for name, (x, _, _) in xyz.items():
        digits = "".join(letter for letter in name if letter.isdigit())
        if digits:
            assert (x < 0) == (int(digits) % 2 == 1), name
        else:
            assert abs(x) < 0.005, name
    assert xyz["FPZ"][1] > xyz["CZ"][1] > xyz["OZ"][1] and xyz["CZ"][2] > xyz["FPZ"][2]
    for left, right in FRONTAL_PAIRS:
        np.testing.assert_allclose(xyz[left] * [-1, 1, 1], xyz[right], atol=0.012)


def test_positions_agree_with_another_template():
    """Against the spherical template of another maker: the same directions within 20 degrees."""
    other = {name.upper(): xyz
             for name, xyz in mne.channels.make_standard_montage("biosemi64").get_positions()["ch_pos"].items()}
    shared = [name for name in SEED_CHANNELS if name in other]
    assert len(shared) > 50
    xyz = np.stack([positions(shared), np.array([other[name] for name in shared])])
    xyz -= xyz[:, [shared.index("T7"), shared.index("T8")]].mean(axis=1, keepdims=True)  # from between the ears
    ours, theirs = xyz / np.linalg.norm(xyz, axis=-1, keepdims=True)
    assert np.degrees(np.arccos(np.clip((ours * theirs).sum(-1), -1, 1))).max() < 20


def test_info_is_a_copy():
    """Marking a channel bad in one recording leaves the next one clean."""
    make_info(["CZ", "PZ"], 200.0)["bads"] = ["CZ"]
    info = make_info(["CZ", "PZ"], 200.0)
    assert info["bads"] == [] and info["sfreq"] == 200.0


def test_cerebellar_stand_ins_lie_below_the_occipital_row():
    xyz = dict(zip(["CB1", "PO7", "O1"], positions(["CB1", "PO7", "O1"]), strict=True))
    assert xyz["CB1"][2] < min(xyz["PO7"][2], xyz["O1"][2])


def test_every_channel_is_in_exactly_one_region():
    for name in {*SEED_CHANNELS, *EEGPT_VOCABULARY}:
        assert [region for region, members in REGIONS.items() if name in members] == [region_of(name)]
    with pytest.raises(KeyError, match="ECG"):
        region_of("ECG")


def test_region_rows_leave_out_what_the_cap_lacks():
    assert region_indices(["O1", "T3", "Fp1", "T4"]) == {"frontal": [2], "temporal": [1, 3], "occipital": [0]}
    every = region_indices(list(SEED_CHANNELS))
    assert sorted(row for rows in every.values() for row in rows) == list(range(62))


# --- matching by name and by position


def digitized(seed: int, mm: float = 4.0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """The EEGPT cap as a digitizer measures it on a head: other size, some millimeters off, other names."""
    rng = np.random.default_rng(seed)
    return {f"E{i}": scale * (xyz + rng.normal(0, mm * 1e-3 / np.sqrt(3), 3))
            for i, xyz in enumerate(positions(list(EEGPT_VOCABULARY)))}


@pytest.mark.parametrize(("seed", "scale"), [(0, 1.0), (1, 1.1), (2, 0.9), (3, 1000.0)])
def test_numbered_channels_are_placed_where_they_were_measured(seed, scale):
    """The size of the head, or of the unit, does not matter."""
    cap = digitized(seed, scale=scale)
    match = match_channels(list(cap), cap)
    assert match.places == {f"E{i}": name for i, name in enumerate(EEGPT_VOCABULARY)}
    assert set(match.by_position) == set(cap) and max(match.by_position.values()) < 15 and match.doubled == []


def test_names_count_before_positions():
    at, append_augmented = (f"E{EEGPT_VOCABULARY.index(name)}" for name in ("CZ", "C2"))
    cap = {("Cz" if name == append_augmented else name): xyz for name, xyz in digitized(0).items()}
    # A channel called Cz lies at C2: its name is believed, and the one at Cz finds the place taken.
    match = match_channels(list(cap), cap)
    assert match.places["Cz"] == "CZ" and at not in match.places and match.unplaced == (at,)


def test_what_lies_too_far_off_or_is_no_scalp_electrode_has_no_place():
    cap = digitized(0)
    low = {"E900": np.array([0.0, 0.02, -0.08]), "VEO": cap["E0"], "ECG1": cap["E1"], "M1": cap["E2"],
           "lost": np.full(3, np.nan), "nil": np.zeros(3)}
    for name in ("E0", "E1", "E2"):
        del cap[name]
    match = match_channels([*cap, *low], cap | low)
    assert match.unplaced == tuple(low) and len(match.places) == 59
    assert not match_channels([*digitized(1)], digitized(1), within_mm=0.0).places


def test_too_few_positions_or_none_of_a_head_place_nothing():
    cap = digitized(0)
    some = {name: cap[name] for name in list(cap)[:7]}
    flat = {f"E{i}": np.array([i % 8, i // 8, 0.001 * i * i]) for i in range(62)}
    for few in (some, flat):
        assert match_channels(list(few), few).places == {}
    assert match_channels(["Cz", "E1"]).places == {"Cz": "CZ"}


@pytest.mark.parametrize(("name", "pair"), [
    ("Fp1-F7", ("FP1", "F7")), ("EEG T3-T5", ("T7", "P7")), ("EEG Fp1 - F3", ("FP1", "F3")), ("EEG A2-A1", None),
    ("C3-A2", None), ("EEG Cz-Ref", None), ("Cz", None), ("ECG", None), ("Status", None), ("C4 - M1", None),
])
def test_bipolar_derivations_are_told_from_references(name, pair):
    assert bipolar_pair(name) == pair
    match = match_channels([name, "Pz"])
    assert match.bipolar == ((name,) if pair else ()) and match.places["Pz"] == "PZ"
    assert (name in match.places) == (name in ("C3-A2", "EEG Cz-Ref", "Cz", "C4 - M1"))


def test_two_channels_of_one_place_are_told():
    assert match_channels(["T3", "Cz", "EEG T7"]).doubled == ["T7"]
