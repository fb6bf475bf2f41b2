"""TensorFlow itself, run by its own interpreter: drives with our files, and makes old models.

Words: a JSON file of jobs. Each has `kind`:
- `frozen`: run `graph` on the arrays of `frames` (.npz), write `output` of it to `out` (.npy);
- `tflite`: the same of a TFLite file, a row at a time;
- `train`: build the networks that DeepRacer's trainer builds, with weights at random, and write
  `folder`/model.pb (frozen), a checkpoint, and what the policy answers to `frames` (.npy).
"""

import json
import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow

tf = tensorflow.compat.v1
tf.disable_eager_execution()
tf.disable_resource_variables()


def run_frozen(job):
    graph = tf.GraphDef()
    graph.ParseFromString(Path(job["graph"]).read_bytes())
    with tf.Graph().as_default() as place, tf.Session() as session:
        tf.import_graph_def(graph, name="")
        given = np.load(job["frames"])
        feed = {place.get_tensor_by_name(f"{k}:0"): given[k].astype(np.float32) for k in given}
        answer = session.run(place.get_tensor_by_name(f"{job['output']}:0"), feed)
        leaves = {o.name for o in place.get_operations()
                  if not any(t.consumers() for t in o.outputs)}  # fmt: skip
        shapes = {k: place.get_tensor_by_name(f"{k}:0").shape.as_list() for k in given}
    np.save(job["out"], answer)
    return {"leaves": sorted(leaves), "inputs": shapes}


def run_tflite(job):
    model = tensorflow.lite.Interpreter(job["graph"])
    model.allocate_tensors()
    given = np.load(job["frames"])
    inputs = {i["name"]: i for i in model.get_input_details()}
    (output,) = model.get_output_details()
    answers = []
    for row in range(len(next(iter(given.values())))):
        for name in given:
            model.set_tensor(inputs[name]["index"], given[name][row : row + 1].astype(np.float32))
        model.invoke()
        answers.append(model.get_tensor(output["index"])[0])
    np.save(job["out"], np.array(answers))
    shapes = {name: i["shape"].tolist() for name, i in inputs.items()}
    return {"inputs": shapes, "output": output["name"]}


def dense(x, name, units, relu=True):
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", [x.shape[-1], units])
        bias = tf.get_variable("bias", [units], initializer=tf.random_normal_initializer(0, 0.1))
        x = tf.nn.bias_add(tf.matmul(x, kernel), bias, name="BiasAdd")
    return tf.nn.relu(x) if relu else x


def conv(x, name, filters, size, stride):
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", [size, size, x.shape[-1], filters])
        bias = tf.get_variable("bias", [filters], initializer=tf.random_normal_initializer(0, 0.1))
        x = tf.nn.conv2d(x, kernel, strides=stride, padding="VALID")
        return tf.nn.relu(tf.nn.bias_add(x, bias))


def embed(sensor, shape, sizes, inputs):
    """Send what a sensor gives through its own layers; activations count as layers too."""
    with tf.variable_scope(sensor):
        if sensor not in inputs:
            inputs[sensor] = tf.placeholder("float", [None, *shape], name=sensor)
        x, i = inputs[sensor], 0
        if len(shape) == 1:
            for units in (256, 256):
                x, i = dense(x, f"Dense_{i}", units), i + 2
            return x
        x = x / 255.0
        for layer in sizes["conv"]:
            x, i = conv(x, f"Conv2d_{i}", *layer), i + 2
        x = tf.reshape(x, [-1, int(np.prod(x.shape[1:]))])
        for units in sizes["dense"]:
            x, i = dense(x, f"Dense_{i}", units), i + 2
    return x


def body(job, inputs):
    """Build a network up to its head: all sensors, in the order of the alphabet, and middleware."""
    parts = [embed(k, job["sensors"][k], job["layers"], inputs) for k in sorted(job["sensors"])]
    x = tf.concat(parts, -1, name="merger") if len(parts) > 1 else parts[0]
    with tf.variable_scope("middleware_fc_embedder"):
        for k, units in enumerate(job["layers"]["middleware"]):
            x = dense(x, f"Dense_{2 * k}", units)
    scale = tf.get_variable("gradients_from_head_0-0_rescalers", initializer=1.0)
    return (1 - scale) * tf.stop_gradient(x) + scale * x


def clipped_ppo(job, inputs):
    """Build PPO's two networks; return what the policy answers."""
    with tf.variable_scope("main_level/agent/main/online"):
        with tf.variable_scope("network_0"):
            x = body(job, inputs)
            with tf.variable_scope("v_values_head_0"):
                dense(x, "output", 1, relu=False)
        with tf.variable_scope("network_1"):
            x = body(job, inputs)
            with tf.variable_scope("ppo_head_0"):
                if job["discrete"]:
                    x = dense(x, "policy_fc", job["actions"], relu=False)
                    return tf.nn.softmax(x, name="policy"), None
                x = dense(x, "policy_mean", job["actions"], relu=False)
                tf.Variable(np.float32([[-0.7, 0.2]]), name="policy_log_std")
                return tf.identity(x, name="policy"), None


def sac(job, inputs):
    """Build SAC's networks; return the mean and the logarithmic deviation of its policy."""
    first = job.get("numbered", 0)  # what TensorFlow's count of unnamed layers had reached
    names = [f"dense_{first + i}" if first + i else "dense" for i in range(2)]
    with tf.variable_scope("main_level/agent/policy/online/network_0"):
        x = body(job, inputs)
        with tf.variable_scope("sac_policy_head_0"):
            x = dense(x, names[0], 256)
            mean = tf.identity(dense(x, "policy_mean", job["actions"], relu=False), name="policy")
            spread = dense(x, names[1], job["actions"], relu=False)
    with tf.variable_scope("main_level/agent/q/online/network_0"):
        own = {}  # its placeholders are its own
        parts = [embed(k, job["sensors"][k], job["layers"], own) for k in sorted(job["sensors"])]
        with tf.variable_scope("q_values_head_0/q1_head"):
            dense(tf.concat([*parts, tf.zeros_like(mean)], -1), "dense", 256)
    return mean, tf.clip_by_value(spread, -20, 2)


def train(job):
    """Name everything as DeepRacer's agents do."""
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default() as place, tf.Session() as session, np.load(job["frames"]) as seen:
        tf.set_random_seed(job["seed"])
        inputs = {}
        answer, spread = {"clipped_ppo": clipped_ppo, "sac": sac}[job["algorithm"]](job, inputs)
        session.run(tf.global_variables_initializer())
        output = answer.op.name
        frozen = tf.graph_util.convert_variables_to_constants(
            session, place.as_graph_def(), [output]
        )
        (folder / "model.pb").write_bytes(frozen.SerializeToString())
        feed = {inputs[k]: seen[k].astype(np.float32) for k in seen}
        np.save(folder / "answer.npy", session.run(answer, feed))
        if spread is not None:
            np.save(folder / "spread.npy", session.run(spread, feed))
        if not job.get("frozen_only"):
            tf.train.Saver().save(session, str(folder / "7_Step-321.ckpt"), write_state=False)
            names = {v.op.name: session.run(v) for v in tf.global_variables()}
            np.savez(folder / "variables.npz", **names)
    return {"output": output}


JOBS = {"frozen": run_frozen, "tflite": run_tflite, "train": train}
asked = json.loads(Path(sys.argv[1]).read_text())
sys.stdout.write("\n" + json.dumps([JOBS[job["kind"]](job) for job in asked]) + "\n")
