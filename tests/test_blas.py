"""BLAS: a world steps without SciPy, and whoever needs it has it all the same."""

import subprocess
import sys
import textwrap


def in_child(code):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_world_steps_without_loading_scipys_linear_algebra():
    said = in_child(
        """
        import sys
        import numpy as np
        from hotlap.env import EnvSettings, VectorEnv

        env = VectorEnv(EnvSettings(), 1)
        env.begin()
        env.advance(np.zeros((1, 2), np.float32))
        print("scipy.linalg" in sys.modules)
        """
    )

    assert said == ["False"]


def test_scipy_and_products_of_matrices_in_kernels_work_afterwards():
    # [[1, 2], [3, 4]] has the determinant -2, and times itself the trace 7 + 22.
    said = in_child(
        """
        import numpy as np
        from numba import njit
        from hotlap.blas import leave_out_blas

        leave_out_blas()
        leave_out_blas()
        a = np.array([[1.0, 2.0], [3.0, 4.0]])
        print(njit(lambda a: np.trace(a @ a))(a))

        import scipy.linalg
        print(round(scipy.linalg.det(a), 6))
        """
    )

    assert said == ["29.0", "-2.0"]
