"""Turns a frozen graph into TFLite. A script, run by any interpreter that has TensorFlow.

It imports nothing of hotlap. Words: graph file, file to write, shapes of the inputs as JSON, name
of the output. Exit status 3: there is no TensorFlow.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Convert as the words say."""
    graph, out, shapes, output = sys.argv[1:]
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        import tensorflow
    except ImportError:
        raise SystemExit(3) from None
    inputs = json.loads(shapes)
    converter = tensorflow.compat.v1.lite.TFLiteConverter.from_frozen_graph(
        graph, input_arrays=list(inputs), output_arrays=[output], input_shapes=inputs
    )
    Path(out).write_bytes(converter.convert())


if __name__ == "__main__":
    main()
