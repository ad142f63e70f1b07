"""Runs the tests of this folder, and says in the end how many have passed."""

import pathlib
import sys
import unittest

HERE = str(pathlib.Path(__file__).parent)

if __name__ == "__main__":
    sys.path.insert(0, HERE)
    result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.discover(HERE, top_level_dir=HERE))
    failed = len({str(getattr(case, "test_case", case)) for case, _ in result.failures + result.errors})
    print(f"{result.testsRun - failed} passed, {failed} failed", flush=True)
    sys.exit(failed > 0 or result.testsRun == 0)
