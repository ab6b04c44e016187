"""A test of the service on real cards in parts, each with a service of its own: what is checked, how it is printed, and
`main()` of such a program."""

import sys
import time

from card import Card, count
from running import Service, find_program

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
        try:
            there = count()
        except OSError as error:
            print(f"skipped: this machine has no usable NVIDIA GPU ({error})")
            return 0
        if there < self._cards:
            print(f"skipped: this needs {self._cards} NVIDIA GPUs, this machine has {there}")
            return 0
        if not program:
            sys.exit("nothing to test: make bundle, or name the program in RFUAV_BIN")
        cards = [Card(i) for i in range(self._cards)]
        for card in cards:
            print(f"{card.name()}, {gib(card.memory()[0])}, {gib(card.free())} free; {program}", flush=True)
        for word in words:
            print(f"== {word}: {self._functions[word].__doc__}", flush=True)
            self._run(self._functions[word], program, cards)
        print(f"{len(failures)} failures" if failures else "all is as it should be")
        return 1 if failures else 0
