"""Exercises of lesson 01, preprocessing."""

import numpy as np

from ..judging import Exercise, Function, Mistake, Number, Values

SETUP = "h_freq = 45.0  # as in the lesson"
_SIGNAL = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 2.0], [5.0, 0.0, 1.0]])  # channel, sample


def _referenced(signal):
    return signal - signal.mean(axis=0)


def _centered(signal):
    return signal - signal.mean(axis=1, keepdims=True)


EXERCISES = (
    Exercise(
        "01-edge", "Where does the spectrum drop?",
        "The next figure shows the spectra of cleaned windows. At which frequency does each curve begin to drop "
        "steeply, as if cut off? Look at the cell of parameters.",
        Number("Hz", 4.0), lambda h_freq: h_freq, "answer = h_freq",
        "The band-pass ends at `h_freq`. Above it the filter removes the power. The mains at 50 or 60 Hz lie above.",
        (Mistake(lambda h_freq: 128.0, ("That is half of the sampling rate, the last frequency of the picture.",
                                        "A filter was applied before. Which parameter is its upper edge?")),
         Mistake(lambda h_freq: h_freq + 15, ("The mains are near there, but the filter acts before.",
                                              "Which parameter is the upper edge of the band-pass?"))),
        ("One parameter says where the band-pass ends.", "Look for the upper edge of the band-pass, in Hz."),
        given=("h_freq",), before="01-13"),
    Exercise(
        "01-samples", "How large is a window?",
        "A window of **6 seconds** is cut at 256 Hz. How many samples has a channel? How many patches of 250 ms, "
        "the pieces that EEGPT reads? Give both numbers, in this order.",
        Values("two numbers, such as (100, 10)"), (1536, 24), "answer = (6 * 256, 6 * 4)",
        "Samples are seconds times sampling rate. A quarter of a second is 64 samples, so 1536 / 64 = 24 patches.",
        (Mistake((1200, 24), ("That is the rate of the recording. Windows are cut after resampling.",
                              "Use the rate that EEGPT was trained on.")),
         Mistake((1536, 6), ("The number of samples is right. A patch is shorter than a second.",
                             "How many pieces of 250 ms fit into one second?")),
         Mistake((1536, 1536), ("The number of samples is right. Count pieces of 250 ms now.",
                                "How many pieces of 250 ms fit into one second?"))),
        ("Multiply seconds by the rate of the windows.", "The rate is 256 Hz. A patch is a quarter of a second.")),
    Exercise(
        "01-reference", "Write the average reference",
        "Write a function that takes a signal of shape (channel, sample) and gives it back with the average reference. "
        "Set `answer` to the function.",
        Function("a function of one signal", lambda function: function(_SIGNAL.copy())), _referenced,
        "def average_reference(signal):\n    return signal - signal.mean(axis=0)\n\n\nanswer = average_reference",
        "At each sample the mean over all channels is subtracted. Afterwards the channels of a sample add up to zero.",
        (Mistake(_centered, ("You subtract the mean of each channel over time.",
                             "A reference is something that all channels share at one moment. Which axis is that?")),
         Mistake(lambda signal: signal - signal.mean(), ("You subtract one number for the whole signal.",
                                                         "The reference changes from sample to sample."))),
        ("Average over channels, separately for each sample.",
         "The check `mean over channels is zero` of this lesson says what must hold afterwards.")),
    Exercise(
        "01-decibel", "What is twice the power?",
        "The power of a band doubles. By how many decibels does it rise?",
        Number("dB", 0.05), 10 * np.log10(2), "answer = 10 * np.log10(2)",
        "Decibels are ten times the decimal logarithm of a ratio of powers: about 3 dB for twice the power. "
        "The maps of this lesson use them.",
        (Mistake(20 * np.log10(2), ("That is the formula for amplitudes.",
                                    "Power is amplitude squared. What does the square do to the factor?")),
         Mistake(10 * np.log(2), ("That is the natural logarithm.", "Take the logarithm to the base of ten.")),
         Mistake(2, ("That is the ratio itself.", "Decibels are a logarithm of the ratio."))),
        ("Decibels are a logarithm of a ratio of powers.", "Look at the code that makes `decibels` in this lesson.")),
)
