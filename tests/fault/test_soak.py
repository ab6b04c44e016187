"""The short form of `make soak` and `make chaos`."""

import unittest

from tests.soak import Soak


class Short(unittest.TestCase):
    def test_random_use(self):
        Soak(seed=1, chaos=False).run(8)

    def test_random_use_with_kills(self):
        Soak(seed=2, chaos=True).run(12)


if __name__ == "__main__":
    unittest.main()
