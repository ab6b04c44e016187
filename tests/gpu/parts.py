"""A test of the service on real cards in parts, each with a service of its own: what is checked, how it is printed, and
`main()` of such a program."""

import os
import sys
import time

from card import MIB, Card, visible
from running import Service, find_program, until

SMALL = 16 * MIB  # what a driver keeps or gives back by itself
failures = []


def check(name, good, figure=""):
    """One thing that must be so, and what was seen."""
    print(f"{'ok    ' if good else 'FAILED'}  {name}{': ' if figure != '' else ''}{figure}", flush=True)
    if not good:
        failures.append(name)
    return good


def tell(name, figure):
    print(f"        {name}: {figure}", flush=True)


def gib(size):
    return f"{size / (1 << 30):.2f} GiB"


def memory_back(card, pids, free):
    """Seconds until these processes hold nothing and as much is free as before they began; at most 10."""
    begun = time.monotonic()
    until(lambda: not any(card.used_by(pid) for pid in pids) and card.free() >= free - SMALL, 10, "free memory")
    return time.monotonic() - begun


def take_cards(number):
    """([Card] of cuda:0, cuda:1, …, None), or (None, why there are not so many). All that is started from here sees these
    cards alone."""
    try:
        there = visible()
        if len(there) < number:
            return None, f"this needs {number} NVIDIA GPUs, of this machine's it may use {len(there)}"
        cards = [Card(i) for i in there[:number]]
    except OSError as error:
        return None, f"this machine has no usable NVIDIA GPU ({error})"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(card.uuid() for card in cards)
    return cards, None


class Parts:
    """`@part` registers a function (service, card); with cards=2 it gets both: (service, [card, card])."""

    def __init__(self, cards=1):
        self._functions = {}
        self._cards = cards

    def __call__(self, function):
        self._functions[function.__name__] = function
        return function

    def _run(self, function, program, cards):
        begun = time.monotonic()
        try:
            with Service(program) as service:
                try:
                    function(service, cards[0] if self._cards == 1 else cards)
                except Exception as error:  # a part that breaks off must not take the others with it
                    check(function.__name__, False, f"{type(error).__name__}: {error}\n{service.log()[-2000:]}")
        except Exception as error:
            check(function.__name__, False, f"{type(error).__name__}: {error}")
        tell("took", f"{time.monotonic() - begun:.1f} s")

    def main(self):
        """Runs the parts that the command line names, all without names; returns the exit status."""
        program, words = find_program(), sys.argv[1:] or list(self._functions)
        unknown = [word for word in words if word not in self._functions]
        if unknown:
            sys.exit(f"there is no part {unknown[0]}; there are {' '.join(self._functions)}")
        cards, lack = take_cards(self._cards)
        if lack:
            print(f"skipped: {lack}")
            return 0
        if not program:
            sys.exit("nothing to test: make bundle, or name the program in RFUAV_BIN")
        for card in cards:
            print(f"{card.name()}, {gib(card.memory()[0])}, {gib(card.free())} free; {program}", flush=True)
        for word in words:
            print(f"== {word}: {self._functions[word].__doc__}", flush=True)
            self._run(self._functions[word], program, cards)
        print(f"{len(failures)} failures" if failures else "all is as it should be")
        return 1 if failures else 0
